//! Types that hold secrets cannot be printed, or print none.

use std::fmt::{Debug, Display};

use privet_net::Identity;
use privet_plan::Weights;
use privet_protocols::masked::Bundle;
use privet_ring::prg::{Prg, Seed, Stream};
use static_assertions::assert_not_impl_any;

assert_not_impl_any!(Weights: Debug, Display);
assert_not_impl_any!(Bundle<()>: Debug, Display);
assert_not_impl_any!(Prg: Debug, Display);
assert_not_impl_any!(Stream: Debug, Display);
assert_not_impl_any!(Seed: Display);
assert_not_impl_any!(Identity: Display);

#[test]
fn seeds_and_identities_print_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let identity = Identity::generate("clinic").unwrap();
    identity.write(home.path()).unwrap();
    let key = std::fs::read_to_string(home.path().join("identity.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    let printed = format!("{identity:?} {identity:#?}");
    assert!(printed.contains("Identity") && !printed.contains(line) && !printed.contains("PRIVATE"));
    let seed = Seed::from_bytes([0xab; 16]);
    assert_eq!(format!("{seed:?} {seed:#?}"), "Seed(secret) Seed(secret)");
}
