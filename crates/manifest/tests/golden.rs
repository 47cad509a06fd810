//! Whole manifests, byte for byte, of programs made here. `PRIVET_WRITE_GOLDEN=1` writes them anew.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use privet_manifest::{ManifestError, ManifestOptions, Severity, TrustedFile, lint, loaded_files, manifest};

/// A directory with a dynamic program, its loader and libraries, a static one, and files to read.
struct Machine {
    home: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for dir in ["lib", "own", "state"] {
            fs::create_dir(at(dir)).unwrap();
        }
        fs::write(at("static"), program::elf(None, &[], None)).unwrap();
        let needed = ["libone.so", "libtwo.so.2"];
        fs::write(at("dynamic"), program::elf(Some("/lib64/ld-test.so.2"), &needed, Some("$ORIGIN/own")))
            .unwrap();
        fs::write(at("lib/ld-test.so.2"), program::elf(None, &[], None)).unwrap();
        fs::write(at("lib/libone.so"), program::elf(None, &["libthree.so"], None)).unwrap();
        fs::write(at("lib/libthree.so"), program::elf(None, &["libone.so"], None)).unwrap();
        fs::write(at("own/libtwo.so.2.1"), program::elf(None, &[], None)).unwrap();
        std::os::unix::fs::symlink("libtwo.so.2.1", at("own/libtwo.so.2")).unwrap();
        fs::write(at("own/libsysdb.so"), b"the library OS").unwrap();
        fs::write(at("model.sealed"), b"a model").unwrap();
        Self { home }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn options(&self, program: &str) -> ManifestOptions {
        ManifestOptions {
            title: "a program".to_owned(),
            program: self.at(program),
            library_paths: vec![self.at("lib")],
            argv: ["privet", "enclave", "--sealed", "/model/model.sealed"].map(str::to_owned).into(),
            environment: vec![("RAYON_NUM_THREADS".to_owned(), "2".to_owned())],
            files: vec![TrustedFile {
                host: self.at("model.sealed"),
                inside: "/model/model.sealed".to_owned(),
            }],
            memory: 100 << 20,
            threads: 6,
            product: 1,
            security_version: 3,
            ..ManifestOptions::default()
        }
    }

    /// Compares with a file, after replacing the directory's name.
    fn compare(&self, name: &str, options: &ManifestOptions) {
        let written = manifest(options).unwrap();
        assert_eq!(written, manifest(options).unwrap(), "the same again");
        let home = self.home.path().canonicalize().unwrap();
        let text = written.text.replace(home.to_str().unwrap(), "/HOME");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("PRIVET_WRITE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&path).unwrap(), "{name}");
        let found = lint(&written.text).unwrap();
        let unsafe_ones: Vec<_> = found.iter().filter(|f| f.severity != Severity::Note).collect();
        assert!(unsafe_ones.is_empty(), "{unsafe_ones:?}");
        assert!(!text.contains("allowed_files") && !text.contains("insecure"), "{text}");
    }
}

#[test]
fn a_static_program() {
    let machine = Machine::new();
    machine.compare("static.manifest", &machine.options("static"));
}

#[test]
fn a_dynamic_program_with_state() {
    let machine = Machine::new();
    let options = ManifestOptions {
        state: Some((machine.at("state"), "/keys".to_owned())),
        gramine: Some(machine.at("own")),
        names: true,
        subprocesses: true,
        edmm: true,
        ..machine.options("dynamic")
    };
    machine.compare("dynamic.manifest", &options);
}

#[test]
fn libraries_are_found_through_others_and_through_links() {
    let machine = Machine::new();
    let files = loaded_files(&machine.at("dynamic"), &[machine.at("lib")]).unwrap();
    let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["ld-test.so.2", "libone.so", "libthree.so", "libtwo.so.2"]);
    assert!(files[3].path.ends_with("own/libtwo.so.2.1"));
    fs::remove_file(machine.at("lib/libthree.so")).unwrap();
    let error = loaded_files(&machine.at("dynamic"), &[machine.at("lib")]).unwrap_err();
    assert!(matches!(&error, ManifestError::Library { library, .. } if library == "libthree.so"), "{error}");
}

#[test]
fn another_file_is_another_manifest() {
    let machine = Machine::new();
    let options = machine.options("static");
    let before = manifest(&options).unwrap();
    fs::write(machine.at("model.sealed"), b"b model").unwrap();
    let after = manifest(&options).unwrap();
    let changed: Vec<_> = before.text.lines().zip(after.text.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1);
    assert!(changed[0].0.contains("model.sealed"));
}

#[test]
fn what_no_manifest_can_say_is_refused() {
    let machine = Machine::new();
    let refuse = |change: &dyn Fn(&mut ManifestOptions)| {
        let mut options = machine.options("static");
        change(&mut options);
        manifest(&options).unwrap_err().to_string()
    };
    let file = |host: &str, inside: &str| TrustedFile { host: machine.at(host), inside: inside.to_owned() };
    assert!(
        refuse(&|o| o.files.push(file("static", "/model/model.sealed"))).contains("give one another place")
    );
    assert!(refuse(&|o| o.files.push(file("static", "relative"))).contains("absolute path"));
    assert!(refuse(&|o| o.files.push(file("nowhere", "/x"))).contains("nowhere"));
    assert!(refuse(&|o| o.program = machine.at("model.sealed")).contains("x86-64"));
    fs::write(machine.at("a{{b"), b"").unwrap();
    assert!(refuse(&|o| o.files.push(file("a{{b", "/x"))).contains("{{"));
    // Whatever stands in arguments stays one argument.
    let mut options = machine.options("static");
    options.argv.push("a\"b\\c\n[sgx]\ndebug = true".to_owned());
    options.title = "two\nlines".to_owned();
    let text = manifest(&options).unwrap().text;
    let parsed: toml::Table = text.parse().unwrap();
    assert_eq!(parsed["loader"]["argv"][4].as_str(), Some("a\"b\\c\n[sgx]\ndebug = true"));
    assert_eq!(parsed["sgx"]["debug"].as_bool(), Some(false));
}
