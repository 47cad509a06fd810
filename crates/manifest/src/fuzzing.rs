//! Entry points for hostile bytes, for tests and fuzzing only. Each says whether it accepts them.

/// A manifest, linted; or a program, whose libraries are read.
pub fn manifest(bytes: &[u8]) -> bool {
    let is_program = crate::elf::Needs::parse(bytes).is_ok();
    let Ok(text) = std::str::from_utf8(bytes) else { return is_program };
    let Ok(findings) = crate::lint(text) else { return is_program };
    let lines = text.split('\n').count();
    assert!(findings.iter().all(|f| f.line <= lines), "lines are those of the file");
    true
}
