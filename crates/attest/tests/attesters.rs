//! Attesters on a fake tree of the kernel's and Gramine's interfaces.

use std::fs;
use std::path::Path;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use privet_attest::attester::{GramineAttester, TsmAttester, attester_at};
use privet_attest::{AttestError, Attester, Tee};
use tempfile::TempDir;

const DATA: [u8; 64] = [7; 64];

/// A quote as far as an attester looks: header and report data.
fn quote(version: u16, tee: u32, data_at: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1200];
    bytes[..2].copy_from_slice(&version.to_le_bytes());
    bytes[4..8].copy_from_slice(&tee.to_le_bytes());
    bytes[data_at..data_at + 64].copy_from_slice(&DATA);
    bytes
}

fn sgx() -> Vec<u8> {
    quote(3, 0, 368)
}

fn tdx() -> Vec<u8> {
    quote(4, 0x81, 568)
}

fn snp() -> Vec<u8> {
    let mut bytes = vec![0; 1184];
    bytes[0] = 2;
    bytes[0x50..0x90].copy_from_slice(&DATA);
    bytes
}

fn tree(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().expect("a directory");
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("a file");
    }
    dir
}

fn gramine(kind: &[u8], quote: &[u8]) -> TempDir {
    tree(&[("attestation_type", kind), ("user_report_data", b""), ("quote", quote)])
}

fn tsm(provider: &[u8], out: &[u8]) -> TempDir {
    tree(&[("inblob", b""), ("outblob", out), ("provider", provider), ("generation", b"1\n")])
}

fn problem(outcome: Result<privet_attest::Evidence, AttestError>, file: &str, why: &str) {
    let error = outcome.expect_err("it has to fail");
    let AttestError::Attester { path, .. } = &error else { panic!("{error}") };
    assert!(path.ends_with(file) || file.is_empty(), "{}", path.display());
    assert!(error.to_string().contains(why), "expected {why:?} in: {error}");
}

#[test]
fn gramine_gives_a_quote() {
    let dir = gramine(b"dcap\n", &sgx());
    let evidence = GramineAttester::new(dir.path()).evidence(&DATA).expect("a quote");
    assert_eq!((evidence.tee(), evidence.body()), (Tee::Sgx, sgx().as_slice()));
    assert_eq!(fs::read(dir.path().join("user_report_data")).expect("written"), DATA);
}

#[test]
fn gramine_without_dcap_says_what_to_change() {
    for kind in [b"none\n".as_slice(), b"epid\n", b""] {
        let dir = gramine(kind, &sgx());
        problem(
            GramineAttester::new(dir.path()).evidence(&DATA),
            "attestation_type",
            "sgx.remote_attestation",
        );
    }
}

#[test]
fn gramine_with_missing_files() {
    for file in ["attestation_type", "user_report_data", "quote"] {
        let dir = gramine(b"dcap", &sgx());
        fs::remove_file(dir.path().join(file)).expect("it is there");
        problem(GramineAttester::new(dir.path()).evidence(&DATA), file, "is the interface mounted?");
    }
}

#[test]
fn gramine_with_a_quote_that_is_none() {
    let cases = [
        (sgx()[..100].to_vec(), "too few"),
        (b"short".to_vec(), "none"),
        (tdx(), "none"),
        (vec![3; 1 << 17], "more than"),
    ];
    for (quote, why) in cases {
        let dir = gramine(b"dcap", &quote);
        problem(GramineAttester::new(dir.path()).evidence(&DATA), "quote", why);
    }
}

#[test]
fn gramine_with_anothers_report_data() {
    let dir = gramine(b"dcap", &sgx());
    problem(GramineAttester::new(dir.path()).evidence(&[8; 64]), "quote", "other report data");
}

#[test]
fn tsm_gives_quotes_and_reports() {
    for (provider, out, tee) in [(b"tdx_guest\n", tdx(), Tee::Tdx), (b"sev_guest\n", snp(), Tee::Snp)] {
        let dir = tsm(provider, &out);
        let evidence = TsmAttester::with_entry(dir.path()).evidence(&DATA).expect("evidence");
        assert_eq!((evidence.tee(), evidence.body()), (tee, out.as_slice()));
        assert_eq!(fs::read(dir.path().join("inblob")).expect("written"), DATA);
        assert!(evidence.collateral().is_empty());
    }
}

#[test]
fn tsm_with_another_provider_or_the_wrong_kind() {
    let dir = tsm(b"arm_cca_guest\n", &tdx());
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "provider", "arm_cca_guest");
    let dir = tsm(b"sev_guest\n", &tdx());
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "outblob", "SEV-SNP");
    let dir = tsm(b"tdx_guest\n", &snp());
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "outblob", "TDX");
}

#[test]
fn tsm_with_missing_files_or_short_output() {
    for file in ["inblob", "outblob", "provider", "generation"] {
        let dir = tsm(b"tdx_guest\n", &tdx());
        fs::remove_file(dir.path().join(file)).expect("it is there");
        problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), file, "");
    }
    let dir = tsm(b"tdx_guest\n", &tdx()[..200]);
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "outblob", "too few");
    let dir = tsm(b"sev_guest\n", &snp()[..200]);
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "outblob", "none");
}

#[test]
fn tsm_makes_and_removes_entries_of_its_own() {
    let base = TempDir::new().expect("a directory");
    // A plain file system makes no files in a new entry, as configfs would.
    problem(TsmAttester::new(base.path()).evidence(&DATA), "inblob", "");
    assert_eq!(fs::read_dir(base.path()).expect("a directory").count(), 0, "the entry is removed");
    problem(TsmAttester::new(&base.path().join("absent")).evidence(&DATA), "", "cannot make");
}

/// A kernel that gives this many outputs, and changes the generation while each of the first ones is read, as another writer
/// would.
fn racing_kernel(dir: &Path, outputs: u32, races: u32) -> thread::JoinHandle<()> {
    let (out, inblob, generation) = (dir.join("outblob"), dir.join("inblob"), dir.join("generation"));
    fs::remove_file(&out).expect("it is there");
    mkfifo(&out, Mode::S_IRWXU).expect("a pipe");
    thread::spawn(move || {
        for number in 1..=outputs {
            // Opens when the attester does.
            let mut pipe = fs::OpenOptions::new().write(true).open(&out).expect("a reader");
            fs::write(&inblob, b"").expect("written");
            if number <= races {
                fs::write(&generation, format!("{}\n", number + 1)).expect("written");
            }
            std::io::Write::write_all(&mut pipe, &tdx()).expect("read");
            drop(pipe);
            // The next attempt starts with a write.
            while number < outputs && fs::metadata(&inblob).expect("it is there").len() < 64 {
                thread::yield_now();
            }
        }
    })
}

#[test]
fn tsm_tries_again_when_the_generation_changes() {
    let dir = tsm(b"tdx_guest\n", &tdx());
    let kernel = racing_kernel(dir.path(), 3, 2);
    let evidence = TsmAttester::with_entry(dir.path()).evidence(&DATA).expect("the third attempt");
    assert_eq!(evidence.body(), tdx());
    kernel.join().expect("two races and an attempt without");
}

#[test]
fn tsm_gives_up_when_the_generation_never_rests() {
    let dir = tsm(b"tdx_guest\n", &tdx());
    let kernel = racing_kernel(dir.path(), 5, 5);
    problem(TsmAttester::with_entry(dir.path()).evidence(&DATA), "", "gave up after 5 attempts");
    kernel.join().expect("five races");
}

#[test]
fn tsm_with_anothers_report_data_gives_up() {
    let dir = tsm(b"tdx_guest\n", &tdx());
    problem(TsmAttester::with_entry(dir.path()).evidence(&[8; 64]), "", "gave up");
}

#[test]
fn the_hosts_certificates_come_with_a_report() {
    let vcek =
        [0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd];
    let crl =
        [0x92, 0xf8, 0x1b, 0xc3, 0x58, 0x11, 0x4d, 0x3d, 0x97, 0xff, 0xd1, 0x9f, 0x88, 0xdc, 0x67, 0xea];
    let entry = |id: [u8; 16], offset: u32, length: u32| {
        [&id[..], &offset.to_le_bytes(), &length.to_le_bytes()].concat()
    };
    let head = [entry(vcek, 96, 3), entry(crl, 99, 2), entry([9; 16], 96, 1), entry([0; 16], 0, 0)].concat();
    let table = [head.as_slice(), b"abcde"].concat();
    let with = |aux: &[u8]| {
        let dir = tsm(b"sev_guest\n", &snp());
        fs::write(dir.path().join("auxblob"), aux).expect("a file");
        TsmAttester::with_entry(dir.path()).evidence(&DATA)
    };
    let evidence = with(&table).expect("evidence");
    assert_eq!(evidence.collateral().certificates, [b"abc"]);
    assert_eq!(evidence.collateral().crls, [b"de"]);
    assert!(with(b"").expect("evidence").collateral().is_empty());
    problem(with(&table[..100]), "auxblob", "no table");
    problem(with(&head[..72]), "auxblob", "no table");
    problem(with(&entry(vcek, u32::MAX, u32::MAX)), "auxblob", "no table");
    problem(with(b"x"), "auxblob", "no table");
}

#[test]
fn the_machine_decides_which_interface_it_is() {
    let (enclave, guest, nothing) =
        (gramine(b"dcap", &sgx()), tsm(b"tdx_guest", &tdx()), Path::new("/nonexistent"));
    let found = attester_at(enclave.path(), guest.path()).expect("Gramine").evidence(&DATA).expect("a quote");
    assert_eq!(found.tee(), Tee::Sgx);
    assert!(attester_at(nothing, guest.path()).is_ok());
    let error = attester_at(nothing, nothing).err().expect("nothing there").to_string();
    assert!(error.contains("configfs is not mounted"), "{error}");
}
