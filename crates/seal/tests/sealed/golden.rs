//! Files that another program has made (`scripts/golden_seal.py`): they open, so the format is what docs/formats.md says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use privet_seal::{Accepted, DType, OwnerKeys, SealedModel, Swap, WrappedKey, WrappingKey, unseal_onnx};

use crate::version;

#[test]
fn what_another_program_has_sealed_opens() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        let copy = at(path.file_name().unwrap().to_str().unwrap());
        fs::copy(&path, &copy).unwrap();
        // A repository does not keep this.
        fs::set_permissions(copy, Permissions::from_mode(0o600)).unwrap();
    }
    let keys = OwnerKeys::read(home.path()).unwrap();
    let wrapped = WrappedKey::read(&at("wrapped")).unwrap();
    let kek = WrappingKey::read(&at("kek")).unwrap();
    assert!(wrapped.unwrap(&kek).is_some_and(|key| key == keys.content));
    let accepted = Accepted::new(&keys.release, version(7));
    let model =
        SealedModel::verify_file(&at("model.sealed"), &accepted).unwrap().open(&keys.content).unwrap();
    let w = model.find("w").unwrap();
    assert_eq!(
        (model.entries()[w].dtype, &model.entries()[w].shape[..]),
        (Some(DType::Uint8), &[65_540][..])
    );
    let expected: Vec<u8> = (0..65_540u64).map(|i| ((i * i) >> 3) as u8).collect();
    assert!(model.entry(w, Swap::Allowed).unwrap()[..] == expected[..]);
    unseal_onnx(&model, &at("model.onnx")).unwrap();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fs::read(at("model.onnx")).unwrap());
    let expected = fs::read_to_string(at("model.sha256")).unwrap();
    assert_eq!(data_encoding::HEXLOWER.encode(sum.as_ref()), expected);
}
