//! States, and what of keys and models is on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use privet_seal::{
    Accepted, DType, ModelId, ModuleState, OwnerKeys, Part, SealError, SealOptions, SealedModel, StateTensor,
    WrappedKey, WrappingKey, load_state, open_state, read_content, save_state, seal_onnx, seal_state,
    unseal_onnx, unwrap_into,
};

use crate::onnx::small;
use crate::{keys, options, other_keys, version};

fn state() -> ModuleState {
    let tensor = |dtype: DType, shape: &[u64], data: Vec<u8>| StateTensor {
        dtype,
        shape: shape.to_vec(),
        data: data.into(),
    };
    ModuleState::from([
        ("bn.num_batches_tracked".to_owned(), tensor(DType::Int64, &[], vec![5, 0, 0, 0, 0, 0, 0, 0])),
        ("bn.running_mean".to_owned(), tensor(DType::Float32, &[2], vec![1; 8])),
        ("conv.weight".to_owned(), tensor(DType::Float16, &[3, 30_000], vec![9; 180_000])),
        ("empty".to_owned(), tensor(DType::Float32, &[0, 4], Vec::new())),
    ])
}

#[test]
fn a_state_is_saved_and_loaded() {
    let home = tempfile::tempdir().unwrap();
    let (keys, path) = (keys(), home.path().join("state.sealed"));
    let accepted = Accepted::new(&keys.release, version(2));
    save_state(&path, &state(), &keys, keys.release.model_id, &options(2)).unwrap();
    assert!(load_state(&path, &keys.content, &accepted).unwrap() == state());
    let sealed = seal_state(&state(), &keys, keys.release.model_id, &options(2)).unwrap();
    assert!(open_state(&sealed, &keys.content, &accepted).unwrap() == state());
    assert!(sealed != fs::read(&path).unwrap(), "every file has a salt of its own");
    assert!(
        open_state(
            &seal_state(&ModuleState::new(), &keys, keys.release.model_id, &options(2)).unwrap(),
            &keys.content,
            &accepted
        )
        .unwrap()
        .is_empty()
    );
}

#[test]
fn a_state_of_another_model_shape_or_kind_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let keys = keys();
    let other = ModelId::from_bytes([8; 16]);
    assert!(matches!(seal_state(&state(), &keys, other, &options(1)), Err(SealError::OtherModel { .. })));
    let mut wrong = state();
    wrong.get_mut("bn.running_mean").unwrap().shape = vec![3];
    let error = seal_state(&wrong, &keys, keys.release.model_id, &options(1)).unwrap_err().to_string();
    assert!(error.contains("\"bn.running_mean\": 8 bytes for Float32 of shape [3]"), "{error}");
    let mut long = state();
    let tensor = long.remove("empty").unwrap();
    long.insert("x".repeat(5000), tensor);
    assert!(seal_state(&long, &keys, keys.release.model_id, &options(1)).is_err());
    for chunk_bits in [15, 21] {
        let options = SealOptions { chunk_bits, ..options(1) };
        assert!(seal_state(&state(), &keys, keys.release.model_id, &options).is_err());
    }

    let accepted = Accepted::new(&keys.release, version(1));
    let sealed = seal_state(&state(), &keys, keys.release.model_id, &options(1)).unwrap();
    let opened = SealedModel::verify(&sealed[..], "s", &accepted).unwrap().open(&keys.content).unwrap();
    let out = home.path().join("out.onnx");
    assert!(unseal_onnx(&opened, &out).unwrap_err().to_string().contains("found the sealed state"));
    let (model, file) = (home.path().join("m.onnx"), home.path().join("m.sealed"));
    fs::write(&model, small()).unwrap();
    seal_onnx(&model, &file, &keys, &options(1)).unwrap();
    let error = load_state(&file, &keys.content, &accepted).err().unwrap().to_string();
    assert!(error.contains("found a sealed ONNX file"), "{error}");
    assert!(!out.exists());
}

/// Bytes of `secret` in `text`: as they are, in hexadecimal, in Base64.
fn shows(text: &[u8], secret: &[u8]) -> bool {
    let hex = data_encoding::HEXLOWER.encode(secret);
    let base64 = data_encoding::BASE64_NOPAD.encode(&secret[..secret.len() / 3 * 3]);
    let has = |look: &[u8]| text.windows(look.len()).any(|w| w.eq_ignore_ascii_case(look));
    has(secret) || has(hex.as_bytes()) || has(base64.as_bytes())
}

#[test]
fn files_of_sealing_hold_neither_keys_nor_weights() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let owner = OwnerKeys::generate("resnet".parse().unwrap(), ModelId::random().unwrap()).unwrap();
    owner.write(&at("owner")).unwrap();
    fs::write(at("m.onnx"), small()).unwrap();
    seal_onnx(&at("m.onnx"), &at("m.sealed"), &owner, &options(1)).unwrap();
    let kek = WrappingKey::generate().unwrap();
    kek.write(&at("kek")).unwrap();
    WrappedKey::wrap(&owner.content, &owner.release.key_id, owner.release.key_version, &kek)
        .unwrap()
        .write(&at("wrapped"))
        .unwrap();
    let released = unwrap_into(&at("worker"), &at("wrapped"), &at("kek"), &at("owner/release.toml")).unwrap();
    assert_eq!(released, owner.release);
    let (content, release) = read_content(&at("worker")).unwrap();
    assert!(content == owner.content && release == owner.release);
    assert!(!at("worker/signing.key").exists() && OwnerKeys::read(&at("worker")).is_err());
    for public in ["owner/release.toml", "worker/release.toml", "m.sealed", "wrapped"] {
        let text = fs::read(at(public)).unwrap();
        let signing = fs::read(at("owner/signing.key")).unwrap();
        assert!(!shows(&text, owner.content.expose()), "{public} has the content key");
        assert!(!shows(&text, &signing[10..42]), "{public} has the signing key");
        assert!(!shows(&text, &fs::read(at("kek")).unwrap()), "{public} has the key-encryption key");
        assert!(!shows(&text, &[10f32, 11.0, 12.0].map(f32::to_le_bytes).concat()), "{public} has weights");
    }
    assert!(
        shows(&fs::read(at("worker/content.key")).unwrap(), owner.content.expose()),
        "what is looked for is found"
    );
    for (file, mode) in [("kek", 0o600), ("worker", 0o700), ("worker/content.key", 0o600)] {
        assert_eq!(fs::metadata(at(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }

    // The wrong wrapped key, key-encryption key and release, and keys that are there.
    let unwrap = |wrapped: &str, kek: &str, release: &str, out: &str| {
        unwrap_into(&at(out), &at(wrapped), &at(kek), &at(release)).unwrap_err().to_string()
    };
    assert!(unwrap("wrapped", "kek", "owner/release.toml", "worker").contains("never overwritten"));
    WrappingKey::generate().unwrap().write(&at("kek2")).unwrap();
    assert!(unwrap("wrapped", "kek2", "owner/release.toml", "w2").contains("another key-encryption key"));
    other_keys(3).release.write(&at("other.toml")).unwrap();
    assert!(unwrap("wrapped", "kek", "other.toml", "w2").contains("holds another key"));
    fs::set_permissions(at("kek"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(unwrap("wrapped", "kek", "owner/release.toml", "w2").contains("chmod 600"));
    assert!(!at("w2").exists());
}

#[test]
fn a_key_encryption_key_may_be_hexadecimal() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("kek");
    let write = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        WrappingKey::read(&path)
    };
    let id = "k".parse().unwrap();
    let key = keys().content;
    let wrapped =
        WrappedKey::wrap(&key, &id, keys().release.key_version, &write(&[0xab; 32]).unwrap()).unwrap();
    let hex = "Ab".repeat(32) + "\n";
    assert!(wrapped.unwrap(&write(hex.as_bytes()).unwrap()).is_some_and(|k| k == key));
    for wrong in [&b""[..], &[1; 31], &[b'g'; 64], &[b'a'; 63], &[b'a'; 2000]] {
        let error = write(wrong).err().unwrap().to_string();
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn a_part_is_not_another_part() {
    let keys = keys();
    let part = |number, of| Part { number, of };
    let options = SealOptions { part: part(2, 3), ..options(1) };
    let sealed = seal_state(&state(), &keys, keys.release.model_id, &options).unwrap();
    let whole = Accepted::new(&keys.release, version(1));
    let open = |part| open_state(&sealed, &keys.content, &Accepted { part, ..whole.clone() });
    assert!(open(part(2, 3)).is_ok());
    for other in [part(1, 3), part(2, 2), part(1, 1)] {
        let error = open(other).err().unwrap().to_string();
        assert!(error.contains("found part 2 of 3"), "{error}");
    }
    for wrong in [part(0, 1), part(2, 1), part(0, 0)] {
        let options = SealOptions { part: wrong, ..options.clone() };
        assert!(seal_state(&state(), &keys, keys.release.model_id, &options).is_err());
    }
}
