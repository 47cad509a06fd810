use super::*;
use ndarray::{ArrayD, IxDyn};
use std::io::{Cursor, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A directory with one file in it.
fn file(name: &str, bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn load_bytes(name: &str, bytes: impl AsRef<[u8]>, shape: &[usize]) -> Result<ArrayD<f32>, InputError> {
    let (_dir, path) = file(name, bytes);
    load(&path, &Preprocess::default(), shape)
}

fn array(values: &[f32], shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
}

/// A version 1.0 file with a header as given.
fn npy_with(header: &str, data: &[u8]) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn npy_of(descr: &str, shape: &str, fortran: &str, data: &[u8]) -> Vec<u8> {
    npy_with(&format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n"), data)
}

fn npz_of(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::DEFAULT.compression_method(method)).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn every_real_dtype_is_read_in_both_byte_orders() {
    let cases: [(&str, Vec<u8>, f32); 22] = [
        ("<f2", 0xc100u16.to_le_bytes().into(), -2.5),
        (">f2", 0xc100u16.to_be_bytes().into(), -2.5),
        ("<f4", (-2.5f32).to_le_bytes().into(), -2.5),
        (">f4", (-2.5f32).to_be_bytes().into(), -2.5),
        ("<f8", 0.1f64.to_le_bytes().into(), 0.1),
        (">f8", 0.1f64.to_be_bytes().into(), 0.1),
        ("|i1", (-7i8).to_le_bytes().into(), -7.0),
        ("<i2", (-700i16).to_le_bytes().into(), -700.0),
        (">i2", (-700i16).to_be_bytes().into(), -700.0),
        ("<i4", (-70_000i32).to_le_bytes().into(), -70_000.0),
        (">i4", (-70_000i32).to_be_bytes().into(), -70_000.0),
        ("<i8", (-5_000_000_000i64).to_le_bytes().into(), -5e9),
        (">i8", (-5_000_000_000i64).to_be_bytes().into(), -5e9),
        ("|u1", vec![200], 200.0),
        ("<u2", 60_000u16.to_le_bytes().into(), 60_000.0),
        (">u2", 60_000u16.to_be_bytes().into(), 60_000.0),
        ("<u4", 4_000_000_000u32.to_le_bytes().into(), 4e9),
        (">u4", 4_000_000_000u32.to_be_bytes().into(), 4e9),
        ("<u8", (1u64 << 63).to_le_bytes().into(), 9.223_372e18),
        (">u8", (1u64 << 63).to_be_bytes().into(), 9.223_372e18),
        ("|b1", vec![1], 1.0),
        ("<i1", vec![0xff], -1.0),
    ];
    for (descr, bytes, expected) in cases {
        let read = load_bytes("x.npy", npy_of(descr, "(1,)", "False", &bytes), &[1]).unwrap();
        assert_eq!(read[0], expected, "{descr}");
    }
}

#[test]
fn npy_order_shape_and_header_variants() {
    let expected = array(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]);
    let c = load_bytes("x.NPY", npy_of("|u1", "(2, 3)", "False", &[0, 1, 2, 3, 4, 5]), &[2, 3]).unwrap();
    let fortran =
        load_bytes("x.npy", npy_of("|u1", "(2L, 3L)", "True", &[0, 3, 1, 4, 2, 5]), &[2, 3]).unwrap();
    assert_eq!((&c, &fortran), (&expected, &expected));
    assert!(fortran.is_standard_layout());
    let reordered = r#"{"shape":(6,),"fortran_order":False,"descr":"|u1"}"#;
    assert_eq!(load_bytes("x.npy", npy_with(reordered, &[9; 6]), &[6]).unwrap().sum(), 54.0);
    let mut version2 = b"\x93NUMPY\x02\x00".to_vec();
    version2.extend((reordered.len() as u32).to_le_bytes());
    version2.extend(reordered.bytes().chain([9; 6]));
    assert_eq!(load_bytes("x.npy", version2, &[6]).unwrap().sum(), 54.0);
    let scalar = npy_of("|u1", "()", "False", &[4]);
    assert_eq!(load_bytes("x.npy", &scalar, &[]).unwrap(), array(&[4.0], &[]));
    assert_eq!(
        load_bytes("x.npy", &scalar, &[1]).unwrap(),
        array(&[4.0], &[1]),
        "only the batch was missing"
    );
    assert_eq!(load_bytes("x.npy", npy_of("<f4", "(0, 3)", "False", &[]), &[0, 3]).unwrap().len(), 0);
}

#[test]
fn damaged_and_hostile_npy_files_are_refused() {
    let nested = format!("{{'shape': {}", "(".repeat(60_000));
    let cases = [
        (b"GIF89a".to_vec(), "does not begin with"),
        (b"\x93NUMPY".to_vec(), "ends within the header"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "ends within the header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "a header of 4294967295 bytes"),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "format version 9.0"),
        (npy_with(&nested, &[]), "unreadable header"),
        (npy_with("{'descr': '<f4'}", &[]), "unreadable header"),
        (npy_with("{'é': 1}", &[]), "unreadable header"),
        (npy_of("<f4", "(-1,)", "False", &[]), "unreadable header"),
        (npy_of("<f4", &format!("({})", "1,".repeat(65)), "False", &[0; 4]), "unreadable header"),
        (npy_of("<f4", "(70000000000000,)", "False", &[0; 8]), "takes 280000000000000 bytes, 8 follow"),
        (npy_of("<f4", "(4294967296, 4294967296, 4)", "False", &[]), "takes too many bytes"),
        (npy_of("<f4", "(0, 9223372036854775807, 9)", "False", &[]), "takes too many bytes"),
        (npy_of("<f4", "(2,)", "False", &[0; 7]), "takes 8 bytes, 7 follow"),
        (npy_of("<f4", "(2,)", "False", &[0; 9]), "takes 8 bytes, 9 follow"),
        (npy_of("<c8", "(1,)", "False", &[0; 8]), "\"<c8\" is not a real number"),
        (npy_of("|O", "(1,)", "False", &[0; 8]), "\"|O\" is not a real number"),
        (npy_of("<U4", "(1,)", "False", &[0; 16]), "\"<U4\" is not a real number"),
        (npy_of("<f16", "(1,)", "False", &[0; 16]), "convert it with .astype('float32')"),
        (npy_of("é", "(1,)", "False", &[0; 16]), "not a real number"),
        (npy_with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", &[0; 4]), "structured"),
    ];
    for (bytes, message) in cases {
        let error = load_bytes("x.npy", bytes, &[2]).unwrap_err().to_string();
        assert!(error.contains("x.npy") && error.contains(message), "{message}: {error}");
    }
}

#[test]
fn an_array_must_have_the_models_shape() {
    let bytes = npy_of("|u1", "(3, 2)", "False", &[0; 6]);
    assert_eq!(load_bytes("x.npy", &bytes, &[1, 3, 2]).unwrap().shape(), [1, 3, 2]);
    for shape in [&[2usize, 3][..], &[6], &[2, 3, 2], &[3, 2, 1]] {
        let error = load_bytes("x.npy", &bytes, shape).unwrap_err();
        assert!(
            matches!(&error, InputError::Shape { expected, found, .. } if expected == shape && found == &[3, 2])
        );
    }
    let wide = npy_of("<f8", "(2,)", "False", &[1e30f64.to_le_bytes(), 1e40f64.to_le_bytes()].concat());
    assert!(matches!(load_bytes("x.npy", wide, &[2]), Err(InputError::NotFinite { index: 1, .. })));
}

#[test]
fn npz_files_hold_one_array_per_input() {
    let (a, b) = (npy_of("|u1", "(2,)", "False", &[1, 2]), npy_of("<f4", "()", "False", &3f32.to_le_bytes()));
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let (_dir, path) = file("x.npz", npz_of(&[("ids.npy", &a), ("a/mask.npy", &b)], method));
        let arrays = load_npz(&path).unwrap();
        assert_eq!(arrays["ids"], array(&[1.0, 2.0], &[2]));
        assert_eq!(arrays["a/mask"], array(&[3.0], &[]));
        let error = load(&path, &Preprocess::default(), &[2]).unwrap_err().to_string();
        assert!(error.contains("expected one array for one input, found several: a/mask, ids"), "{error}");
    }
    let one = npz_of(&[("ids.npy", &a)], CompressionMethod::Deflated);
    assert_eq!(load_bytes("x.npz", &one, &[1, 2]).unwrap(), array(&[1.0, 2.0], &[1, 2]));
    let error = load_bytes("x.npz", &one, &[3]).unwrap_err().to_string();
    assert!(error.contains("array \"ids\"") && error.contains("[3]") && error.contains("[2]"), "{error}");
    for length in 0..one.len() {
        assert!(load_bytes("x.npz", &one[..length], &[1, 2]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn bad_npz_files_are_refused() {
    let a = npy_of("|u1", "(2,)", "False", &[1, 2]);
    let cases = [
        (b"not a zip".to_vec(), "not a usable .npz"),
        (npz_of(&[], CompressionMethod::Stored), "holds no array"),
        (npz_of(&[("readme.txt", b"hello")], CompressionMethod::Stored), "\"readme.txt\" is not an array"),
        (npz_of(&[("a.npy", b"hello")], CompressionMethod::Stored), "array \"a\""),
    ];
    for (bytes, message) in cases {
        let error = load_bytes("x.npz", bytes, &[2]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let zeros = npy_of("|u1", "(1000000,)", "False", &vec![0; 1_000_000]);
    let bomb = npz_of(&[("a.npy", &a), ("b.npy", &zeros)], CompressionMethod::Deflated);
    assert!(bomb.len() < 5_000);
    let error = npz::decode(Path::new("x.npz"), &bomb, 100_000).unwrap_err().to_string();
    assert!(error.contains("unpack to more than"), "{error}");
}

#[test]
fn damaged_arrays_never_panic() {
    let npy = npy_of("<f4", "(2, 3)", "True", &[0; 24]);
    let npz = npz_of(&[("a.npy", &npy), ("b.npy", &npy)], CompressionMethod::Deflated);
    let mut state = 0x2545_f491_4f6c_dd1du64; // seed of a xorshift generator
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..5000 {
        let (mut npy, mut npz) = (npy.clone(), npz.clone());
        for _ in 0..1 + random() % 3 {
            let (a, z) = (random() % npy.len(), random() % npz.len());
            (npy[a], npz[z]) = (random() as u8, random() as u8);
        }
        let _ = npy::decode(&npy);
        let _ = npz::decode(Path::new("x.npz"), &npz, 10_000);
    }
}

#[test]
fn csv_is_a_row_per_sample_or_a_matrix() {
    let expected = array(&[1.0, -2.5, 3e2, 4.0], &[1, 1, 2, 2]);
    for text in ["1,-2.5,3e2,4\n", "1, -2.5\r\n 300 ,4", "\u{feff}1\n-2.5\n\n3e2\n4\n", "\"1\",-2.5,3E+2,4.0"]
    {
        assert_eq!(load_bytes("x.csv", text, &[1, 1, 2, 2]).unwrap(), expected, "{text:?}");
    }
    let cases = [
        ("1,2,3", "[2, 2], that is 4 numbers, the table has 3"),
        ("1,2,3,4,5,6", "the table has at least 5"),
        ("", "the table has 0"),
        ("1,2\n3,x", "line 2, column 2: not a number"),
        ("a,b\n1,2\n3,4", "line 1, column 1: not a number"),
        ("1,2\n3", "found record with 1 fields"),
        ("1,2\n3,inf", "index 3 is not a finite"),
        ("1,2,,3", "column 3: not a number"),
    ];
    for (text, message) in cases {
        let error = load_bytes("x.csv", text, &[2, 2]).unwrap_err().to_string();
        assert!(error.contains("x.csv") && error.contains(message), "{error}");
    }
    assert!(matches!(load_bytes("x.csv", [b'1', 0xff], &[1]), Err(InputError::Csv { .. })));
    assert!(matches!(load_bytes("x.csv", "1", &[usize::MAX, 2]), Err(InputError::Csv { .. })));
}

#[test]
fn missing_files_directories_and_endless_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.npy", "x.npz", "x.csv", "x.jpg"] {
        let error = load(&dir.path().join(name), &Preprocess::default(), &[1]).unwrap_err();
        assert!(matches!(&error, InputError::Read { .. }) && error.to_string().contains(name), "{error}");
    }
    assert!(matches!(load(dir.path(), &Preprocess::default(), &[1]), Err(InputError::Read { .. })));
    let (_dir, path) = file("x.npy", [0; 11]);
    assert!(matches!(read_at_most(&path, 10), Err(InputError::FileTooLarge { limit: 10, .. })));
    assert_eq!(read_at_most(&path, 11).unwrap().len(), 11);
}

#[test]
fn labels_lose_their_wordnet_id() {
    let text = "\u{feff}n02111889 Samoyed, Samoyede\r\n\nn0211188 seven digits\nnebula\nn02111889x y\n \n";
    let (_dir, path) = file("labels.txt", text);
    let expected = ["Samoyed, Samoyede", "", "n0211188 seven digits", "nebula", "n02111889x y"];
    assert_eq!(load_labels(&path).unwrap(), expected);
    for (bytes, message) in [(&b" \n\n"[..], "is empty"), (b"a\xff", "not UTF-8")] {
        let (_dir, path) = file("labels.txt", bytes);
        let error = load_labels(&path).unwrap_err().to_string();
        assert!(error.contains("labels.txt") && error.contains(message), "{error}");
    }
    assert!(matches!(load_labels(Path::new("/nowhere/labels.txt")), Err(InputError::Read { .. })));
}
