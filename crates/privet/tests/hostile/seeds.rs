//! Small whole files of formats that others write.

use std::io::{Cursor, Write};

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Files that the target accepts.
pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "csv" => texts(&["1,-2.5,3e2,4,5,6\n", "1, 2\r\n 3 ,4\n\"5\",6E+1", "\u{feff}1\n2\n\n3\n4\n5\n6"]),
        "npy" => arrays(),
        "npz" => archives(),
        "picture" => pictures(),
        "manifest" => manifests(),
        "policy" => policies(),
        "toml" => configurations(),
        _ => Vec::new(),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn arrays() -> Vec<Vec<u8>> {
    let floats: Vec<u8> = [0.5f32, -1.0, 2.0, 3.0, 1e-3, 9.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let header = r#"{"shape":(6,),"fortran_order":False,"descr":"|u1"}"#;
    let version2 =
        [b"\x93NUMPY\x02\x00", &(header.len() as u32).to_le_bytes()[..], header.as_bytes(), &[9; 6]].concat();
    vec![
        npy("<f4", "False", "(2, 3)", &floats),
        npy(">i2", "True", "(1, 2L, 3L)", &[1; 12]),
        npy("|b1", "False", "()", &[1]),
        npy("<f8", "False", "(0, 3)", &[]),
        version2,
    ]
}

fn archives() -> Vec<Vec<u8>> {
    let archive = |files: &[(&str, Vec<u8>)], method| {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            archive.start_file(*name, SimpleFileOptions::DEFAULT.compression_method(method)).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap().into_inner()
    };
    let files = [
        ("x.npy", npy("|u1", "False", "(1, 2, 3)", &[7; 6])),
        ("a/mask.npy", npy("<f2", "True", "()", &[1; 2])),
    ];
    let zeros = [("zeros.npy", npy("|u1", "False", "(300000,)", &[0; 300_000]))];
    vec![
        archive(&files, CompressionMethod::Stored),
        archive(&files, CompressionMethod::Deflated),
        archive(&zeros, CompressionMethod::Deflated),
    ]
}

fn pictures() -> Vec<Vec<u8>> {
    let png = |picture: DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    // A little-endian EXIF block that holds nothing but the orientation 6.
    let exif =
        [b"II\x2a\0\x08\0\0\0\x01\0", &[0x12u8, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0][..], &[0; 4]].concat();
    let jpeg = |colour: ExtendedColorType, channels: usize| {
        let pixels: Vec<u8> = (0..16 * 9 * channels).map(|i| (i * 37) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 60);
        encoder.set_exif_metadata(exif.clone()).unwrap();
        encoder.write_image(&pixels, 16, 9, colour).unwrap();
        bytes
    };
    vec![
        png(DynamicImage::new_luma8(9, 7)),
        png(DynamicImage::new_rgb8(3, 2)),
        png(DynamicImage::new_rgba16(2, 2)),
        png(DynamicImage::new_luma_a8(1, 5)),
        png(DynamicImage::new_luma8(2000, 1000)),
        jpeg(ExtendedColorType::L8, 1),
        jpeg(ExtendedColorType::Rgb8, 3),
    ]
}

fn manifests() -> Vec<Vec<u8>> {
    texts(&[
        include_str!("../../../manifest/tests/unsafe.manifest.template"),
        include_str!("../../../manifest/tests/golden/dynamic.manifest"),
        "[sgx.allowed_files]\nx = \"file:x\"\n[[sgx.trusted_files]]\nuri = \"file:/y\"\n[[fs.mounts]]\npath = \"/a\"\n",
    ])
}

fn policies() -> Vec<Vec<u8>> {
    let hash = |length: usize| "5a".repeat(length);
    let sgx = format!(
        "version = 1\n[sgx]\nmrsigner = [\"{}\"]\nproduct_id = 1\nminimum_svn = 2\n[sgx.tcb]\nstatuses = [\"UpToDate\", \"SWHardeningNeeded\"]\n\
         advisories = [\"INTEL-SA-00615\"]\nallow_smt = true\n",
        hash(32)
    );
    let tdx = format!(
        "version = 1\n[tdx]\nmrtd = [\"{0}\"]\nrtmr1 = [\"{0}\"]\nallow_migration = true\n",
        hash(48)
    );
    let snp = format!(
        "version = 1\n[snp]\nmeasurement = [\"{}\"]\nminimum_tcb = {{ bootloader = 4, tee = 0, snp = 22, microcode = 213 }}\nrequire_crl = true\n",
        hash(48)
    );
    let sample = format!(
        "version = 1\n[sample]\nmeasurement = [\"{}\"]\nallow_sample_insecure = true\n",
        "01".repeat(32)
    );
    texts(&[&sgx, &tdx, &snp, &sample])
}

fn configurations() -> Vec<Vec<u8>> {
    let party = "version = 1\nrole = \"client\"\nname = \"hospital\"\nidentity = \".\"\nstate = \"state\"\n\
                 listen = \"0.0.0.0:7101\"\nreveal_to = [\"client\", \"both\"]\n[deadlines]\nwait_seconds = 1.5\n\
                 [[peers]]\nrole = \"server\"\nname = \"vendor\"\naddress = \"h:1\"\ncertificate = \"v.crt\"\n";
    let preprocess = "channels = 'gray'\nresize_short = 9\nresize = [8, 6]\ncrop = [4, 4]\ninvert = true\n\
                      scale = 0.5\nmean = [0.5]\nstd = [1e-1]\nlayout = 'nhwc'\n";
    // A certificate needs a common name and base64 only: 2.5.4.3, then the UTF-8 string "ab".
    let certificate = "-----BEGIN CERTIFICATE-----\nBgNVBAMMAmFi\n-----END CERTIFICATE-----\n";
    texts(&[party, preprocess, certificate])
}
