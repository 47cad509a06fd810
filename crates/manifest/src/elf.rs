//! What the dynamic loader would load for a program, read from the files themselves: nothing is executed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache, ReadRef};

use crate::ManifestError;
use crate::error::io;

/// Where libraries are, besides where a program says.
const STANDARD: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
/// Most libraries that are followed.
const MAX_LIBRARIES: usize = 512;
/// Longest name or path in a file.
const MAX_NAME: u64 = 4096;

/// A file that is loaded into the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Name under which it is asked for: the loader's file name, or a library's `DT_NEEDED`.
    pub name: String,
    /// The file, without symbolic links.
    pub path: PathBuf,
}

/// The loader and all libraries that `program` needs, directly and through others, by their names; none for a static program.
/// `paths` are searched before what the program says (`RUNPATH`, `RPATH`) and the standard directories.
///
/// # Errors
/// A file that cannot be read or is no x86-64 program; a library that is nowhere.
pub fn loaded_files(program: &Path, paths: &[PathBuf]) -> Result<Vec<Loaded>, ManifestError> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut open = VecDeque::from([program.to_owned()]);
    while let Some(path) = open.pop_front() {
        let needs = Needs::read(&path)?;
        let own = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let run =
            needs.run_paths.iter().map(|p| p.replace("${ORIGIN}", &own).replace("$ORIGIN", &own).into());
        let searched: Vec<PathBuf> =
            paths.iter().cloned().chain(run).chain(STANDARD.iter().map(PathBuf::from)).collect();
        for name in needs.libraries {
            if found.contains_key(&name) {
                continue;
            }
            let there = searched.iter().map(|dir| dir.join(&name)).find(|file| is_usable(file));
            let Some(there) = there else {
                let searched =
                    searched.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
                return Err(ManifestError::Library { path, library: name, searched });
            };
            let there = there.canonicalize().map_err(|e| io(&there, e))?;
            found.insert(name, there.clone());
            open.push_back(there);
            if found.len() > MAX_LIBRARIES {
                let found = format!("more than {MAX_LIBRARIES}");
                return Err(ManifestError::Program { path, expected: "some libraries", found });
            }
        }
        if let Some(loader) = needs.loader {
            // Gramine looks for it by its name, where it looks for libraries.
            let name = Path::new(&loader).file_name().unwrap_or_default().to_string_lossy().into_owned();
            let searched = paths.iter().map(|dir| dir.join(&name)).chain([PathBuf::from(&loader)]);
            let Some(there) = searched.into_iter().find(|file| file.is_file()) else {
                let library = loader;
                let searched = "the directories of --library-path or its own place".to_owned();
                return Err(ManifestError::Library { path, library, searched });
            };
            found.insert(name, there.canonicalize().map_err(|e| io(&there, e))?);
        }
    }
    Ok(found.into_iter().map(|(name, path)| Loaded { name, path }).collect())
}

/// Whether the loader would take this file: libraries of other machines are passed over.
fn is_usable(path: &Path) -> bool {
    path.is_file() && Needs::read(path).is_ok()
}

/// What one file needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) loader: Option<String>,
    pub(crate) libraries: Vec<String>,
    pub(crate) run_paths: Vec<String>,
}

impl Needs {
    fn read(path: &Path) -> Result<Self, ManifestError> {
        let file = File::open(path).map_err(|e| io(path, e))?;
        let wrong = |found: &str| ManifestError::Program {
            path: path.to_owned(),
            expected: "an ELF file for x86-64 Linux, which is what Gramine runs",
            found: found.to_owned(),
        };
        let cache = ReadCache::new(file);
        Self::parse(&cache).map_err(|found| wrong(&found))
    }

    /// Reads headers, and strings that they point to.
    pub(crate) fn parse<'data, R: ReadRef<'data>>(data: R) -> Result<Self, String> {
        let text = |e: object::read::Error| e.to_string();
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(text)?;
        let endian = header.endian().map_err(text)?;
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err(format!("a file for machine {}", header.e_machine(endian)));
        }
        let segments = header.program_headers(endian, data).map_err(text)?;
        let mut needs = Self::default();
        let mut dynamic = None;
        for segment in segments {
            if let Some(loader) = segment.interpreter(endian, data).map_err(text)? {
                needs.loader = Some(utf8(loader)?);
            }
            dynamic = dynamic.or(segment.dynamic(endian, data).map_err(text)?);
        }
        let Some(dynamic) = dynamic else { return Ok(needs) };
        let value = |tag| dynamic.iter().find(|d| d.d_tag(endian) == tag).map(|d| d.d_val(endian));
        let strings = value(elf::DT_STRTAB);
        let string = |offset: u64| -> Result<String, String> {
            let address =
                strings.and_then(|s| s.checked_add(offset)).ok_or("a dynamic section without strings")?;
            let at = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|s| {
                let inside = address.checked_sub(s.p_vaddr(endian))?;
                (inside < s.p_filesz(endian)).then(|| s.p_offset(endian).checked_add(inside))?
            });
            let at = at.ok_or("a string that is not in the file")?;
            let end = data.len().map_err(|()| "an unreadable file")?.min(at.saturating_add(MAX_NAME));
            let bytes = data.read_bytes_at_until(at..end, 0).map_err(|()| "a string without an end")?;
            utf8(bytes)
        };
        for entry in dynamic.iter().take_while(|d| d.d_tag(endian) != elf::DT_NULL) {
            match entry.d_tag(endian) {
                elf::DT_NEEDED => needs.libraries.push(string(entry.d_val(endian))?),
                elf::DT_RUNPATH | elf::DT_RPATH => {
                    needs.run_paths.extend(string(entry.d_val(endian))?.split(':').map(str::to_owned));
                }
                _ => {}
            }
        }
        Ok(needs)
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_what_ldd_says() {
        let own = std::env::current_exe().unwrap();
        let files = loaded_files(&own, &[]).unwrap();
        let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
        assert!(names.contains(&"libc.so.6") && names.contains(&"ld-linux-x86-64.so.2"), "{names:?}");
        assert!(files.iter().all(|f| f.path.is_absolute() && f.path.is_file()), "{files:?}");
        let listed = std::process::Command::new("ldd").arg(&own).output();
        let Ok(listed) = listed else { return eprintln!("SKIPPED: no ldd on this machine") };
        let listed = String::from_utf8_lossy(&listed.stdout);
        for line in listed.lines().filter(|l| l.contains("=>")) {
            let name = line.split_whitespace().next().unwrap();
            assert!(names.contains(&name), "{name} of {listed} is not in {names:?}");
        }
    }

    #[test]
    fn static_programs_need_nothing_and_other_files_are_refused() {
        assert!(Needs::parse(&b"not a program"[..]).is_err());
        // A header of an x86-64 program without segments.
        let mut bytes = [0u8; 64];
        bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        bytes[16] = 2;
        bytes[18] = 62;
        bytes[20] = 1;
        assert_eq!(Needs::parse(&bytes[..]), Ok(Needs::default()));
        bytes[18] = 183;
        assert!(Needs::parse(&bytes[..]).unwrap_err().contains("machine 183"));
    }
}
