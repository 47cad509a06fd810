//! The committed mutants: their places exist, and the leakage tests kill each of them.

#[test]
fn every_edit_of_the_list_finds_its_place() {
    assert!(xtask::mutants::check().unwrap() >= 72);
}

#[test]
fn every_mutant_is_killed() {
    let report = xtask::mutants::run("").unwrap();
    assert!(report.holds(), "{}", report.text());
}
