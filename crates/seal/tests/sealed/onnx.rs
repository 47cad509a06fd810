//! ONNX files of the tests, written field by field.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use privet_seal::{
    Accepted, DType, SealError, SealedModel, Swap, seal_onnx, seal_onnx_until, unseal_onnx, unseal_onnx_until,
};

use crate::{keys, options, version};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field of bytes, or a message.
pub(crate) fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// A field with a number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

/// A tensor with its data in one field.
pub(crate) fn tensor(name: &str, code: u64, dims: &[u64], field: u64, data: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
    [dims, number(2, code), bytes(8, name.as_bytes()), bytes(field, data)].concat()
}

/// A model whose graph has these initializers, and a node that holds `constant`.
pub(crate) fn model(initializers: &[Vec<u8>], constant: &[u8]) -> Vec<u8> {
    let attribute = [bytes(1, b"value"), bytes(5, constant), number(20, 4)].concat();
    let node = [bytes(2, b"c"), bytes(4, b"Constant"), bytes(5, &attribute)].concat();
    let initializers: Vec<u8> = initializers.iter().flat_map(|t| bytes(5, t)).collect();
    let graph = [bytes(1, &node), bytes(2, b"graph"), initializers, bytes(10, b"doc")].concat();
    [number(1, 8), bytes(2, b"writer"), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}

/// A small one: two matrices of one shape, a vector in `float_data`, a scalar in a node.
pub(crate) fn small() -> Vec<u8> {
    let floats = |from: u32, count: u32| {
        (from..from + count).flat_map(|i| (i as f32).to_le_bytes()).collect::<Vec<u8>>()
    };
    let initializers = [
        tensor("w1", 1, &[2, 3], 9, &floats(1, 6)),
        tensor("w2", 1, &[2, 3], 9, &floats(10, 6)),
        tensor("b", 1, &[3], 4, &floats(20, 3)),
    ];
    model(&initializers, &tensor("", 11, &[], 10, &2.5f64.to_le_bytes()))
}

/// One whose tensors have these numbers of bytes.
pub(crate) fn of_sizes(sizes: &[usize]) -> Vec<u8> {
    let data = |seed: usize, len: usize| -> Vec<u8> {
        (0..len).map(|i| ((i * 31 + seed) as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    };
    let tensors = sizes
        .iter()
        .enumerate()
        .map(|(i, &len)| tensor(&format!("w{i}"), 2, &[len as u64], 9, &data(i, len)));
    model(&tensors.collect::<Vec<_>>(), &tensor("", 11, &[], 10, &2.5f64.to_le_bytes()))
}

fn seal(dir: &Path, model: &[u8]) -> Result<Vec<u8>, SealError> {
    let (file, out) = (dir.join("m.onnx"), dir.join("m.sealed"));
    fs::write(&file, model).unwrap();
    seal_onnx(&file, &out, &keys(), &options(1))?;
    let (sealed, back) = (fs::read(&out).unwrap(), dir.join("back.onnx"));
    let accepted = Accepted::new(&keys().release, version(1));
    let opened = SealedModel::verify_file(&out, &accepted)?.open(&keys().content)?;
    unseal_onnx(&opened, &back)?;
    assert!(fs::read(&back).unwrap() == model, "byte for byte");
    Ok(sealed)
}

#[test]
fn nothing_is_left_of_an_interrupted_file() {
    let home = tempfile::tempdir().unwrap();
    seal(home.path(), &of_sizes(&[1 << 20, 3])).unwrap();
    let (sealed, out) = (home.path().join("m.sealed"), home.path().join("interrupted.onnx"));
    let accepted = Accepted::new(&keys().release, version(1));
    let opened = SealedModel::verify_file(&sealed, &accepted).unwrap().open(&keys().content).unwrap();
    let files = || fs::read_dir(home.path()).unwrap().count();
    let before = files();
    let result = unseal_onnx_until(&opened, &out, &AtomicBool::new(true));
    assert!(matches!(result, Err(SealError::Interrupted)), "{result:?}");
    assert_eq!(files(), before);
    unseal_onnx_until(&opened, &out, &AtomicBool::new(false)).unwrap();
    assert_eq!(files(), before + 1);
    // The same when it is sealed.
    let again = home.path().join("again.sealed");
    let seal = |stop| seal_onnx_until(&out, &again, &keys(), &options(1), &AtomicBool::new(stop));
    let result = seal(true);
    assert!(matches!(result, Err(SealError::Interrupted)), "{result:?}");
    assert_eq!(files(), before + 1);
    seal(false).unwrap();
    assert_eq!(files(), before + 2);
}

#[test]
fn every_tensor_is_an_entry_and_the_file_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let sealed = seal(home.path(), &small()).unwrap();
    let accepted = Accepted::new(&keys().release, version(1));
    let model = SealedModel::verify(&sealed[..], "m", &accepted).unwrap().open(&keys().content).unwrap();
    let found: Vec<_> = model
        .entries()
        .iter()
        .skip(1)
        .map(|e| (e.name.as_str(), e.dtype.unwrap(), &e.shape[..], e.length))
        .collect();
    let expected: [(&str, DType, &[u64], u64); 4] = [
        ("", DType::Float64, &[], 8),
        ("w1", DType::Float32, &[2, 3], 24),
        ("w2", DType::Float32, &[2, 3], 24),
        ("b", DType::Float32, &[3], 12),
    ];
    assert_eq!(found, expected);
    let b = model.find("b").unwrap();
    let value = model.entry(b, Swap::Locked).unwrap();
    let expected: Vec<u8> = [20f32, 21.0, 22.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(value[..], expected[..]);
    assert!(model.find("none").is_none());
}

/// The graph with tensors that refer to entries, written field by field.
#[test]
fn a_graph_refers_to_its_tensors() {
    let home = tempfile::tempdir().unwrap();
    let sealed = seal(home.path(), &small()).unwrap();
    let accepted = Accepted::new(&keys().release, version(1));
    let opened = SealedModel::verify(&sealed[..], "m", &accepted).unwrap().open(&keys().content).unwrap();
    let reference = |name: &str, code: u64, dims: &[u64], entry: usize| {
        let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
        let pair = [bytes(1, b"location"), bytes(2, format!("entry {entry}").as_bytes())].concat();
        [dims, number(2, code), bytes(8, name.as_bytes()), bytes(13, &pair), number(14, 1)].concat()
    };
    let initializers =
        [reference("w1", 1, &[2, 3], 2), reference("w2", 1, &[2, 3], 3), reference("b", 1, &[3], 4)];
    let expected = model(&initializers, &reference("", 11, &[], 1));
    assert_eq!(opened.graph().unwrap()[..], expected[..]);
}

#[test]
fn sizes_around_chunks_come_back() {
    let home = tempfile::tempdir().unwrap();
    let chunk = 1 << 16;
    let sizes = [1, chunk - 1, chunk, chunk + 1, 2 * chunk, 0, 5, 3 * chunk + 7];
    seal(home.path(), &of_sizes(&sizes)).unwrap();
    // A graph of several chunks, with tensors at its first and last byte.
    let doc = vec![b'x'; 3 * chunk];
    let long = [bytes(6, &doc), of_sizes(&[10, 20]), bytes(6, &doc)].concat();
    seal(home.path(), &long).unwrap();
    let ends_in_data = bytes(7, &bytes(5, &tensor("w", 2, &[9], 9, &[7; 9])));
    seal(home.path(), &ends_in_data).unwrap();
}

#[test]
fn odd_tensors_stay_in_the_graph() {
    let home = tempfile::tempdir().unwrap();
    let twice = [tensor("t", 1, &[1], 9, &[0; 4]), bytes(9, &[1; 4])].concat();
    let unpacked = [number(1, 1), number(2, 1), vec![4 << 3 | 5, 0, 0, 128, 63]].concat();
    let wrong_length = tensor("t", 1, &[2], 9, &[0; 4]);
    let varints = tensor("t", 7, &[2], 7, &[1, 2]);
    let unknown = tensor("t", 99, &[2], 9, &[0; 4]);
    let not_utf8 = [number(1, 4), number(2, 2), bytes(8, &[0xff]), bytes(9, &[0; 4])].concat();
    let huge = tensor("t", 1, &[u64::MAX, 2], 9, &[0; 4]);
    let deep = tensor("t", 2, &[1; 40], 9, &[0]);
    for odd in [twice, unpacked, wrong_length, varints, unknown, not_utf8, huge, deep] {
        let sealed = seal(home.path(), &model(&[odd], &tensor("", 1, &[], 9, &[0; 4]))).unwrap();
        let accepted = Accepted::new(&keys().release, version(1));
        let model = SealedModel::verify(&sealed[..], "m", &accepted).unwrap();
        assert_eq!(model.header().entries.len(), 2, "the graph and the constant");
    }
    // A packed shape is one as well.
    let packed = [bytes(1, &[2, 2]), number(2, 1), bytes(9, &[5; 16])].concat();
    let sealed = seal(home.path(), &model(&[packed], &[])).unwrap();
    let accepted = Accepted::new(&keys().release, version(1));
    assert_eq!(SealedModel::verify(&sealed[..], "m", &accepted).unwrap().header().entries[1].shape, [2, 2]);
}

#[test]
fn what_is_no_model_of_one_file_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let external = [number(1, 4), number(2, 1), bytes(8, b"fc.weight"), number(14, 1)].concat();
    let error = seal(home.path(), &model(&[external], &[])).unwrap_err().to_string();
    assert!(
        error.contains("\"fc.weight\" is kept in another file")
            && error.contains("save_as_external_data=False")
    );
    let mut nested = bytes(5, b"");
    for _ in 0..100 {
        nested = bytes(1, &bytes(5, &bytes(6, &nested)));
    }
    let refused: [(&[u8], &str); 6] = [
        (b"", "with a graph, found none"),
        (b"hello, world", "not an ONNX file"),
        (&small()[..60], "longer than its message"),
        (&[0x0f], "unknown kind"),
        (&[0x08; 1], "a number ends early"),
        (&bytes(7, &nested), "nested too deeply"),
    ];
    for (model, expected) in refused {
        let error = seal(home.path(), model).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Nothing is left behind, and a model is not replaced by what is made of it.
    let file = home.path().join("m.onnx");
    fs::write(&file, small()).unwrap();
    let error = seal_onnx(&file, &file, &keys(), &options(1)).unwrap_err().to_string();
    assert!(error.contains("choose another name"), "{error}");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["m.onnx"]);
}
