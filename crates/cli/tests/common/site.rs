//! A key server, and workers of a sealed model with their clients.

#![allow(dead_code, reason = "every test binary uses a part")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{PATIENCE, digits};
use crate::home::{Home, SAMPLE, Service, own_measurement, policy};

pub(crate) const RELEASE: &str = "--release owner/release.toml";

/// A key server with the key of a sealed model, and what accepts this program.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) server: Service,
    pub(crate) address: String,
}

impl Site {
    pub(crate) fn new(model: &Path) -> Self {
        let home = Home::new();
        home.ok("key new --id resnet --out owner");
        home.ok(&format!("seal --model {} --key owner --out m.sealed", model.display()));
        home.ok("keyserver init --dir keys --listen 127.0.0.1:0 --name 127.0.0.1");
        home.ok("keyserver key add --dir keys --key owner");
        let own = own_measurement();
        fs::write(home.at("key.toml"), policy(&home.at("owner/release.toml"), &own, &own)).unwrap();
        home.ok("keyserver policy set --dir keys key.toml");
        let accepts = |measurement: &str| {
            format!(
                "version = 1\n[sample]\nallow_sample_insecure = true\nmeasurement = [\"{measurement}\"]\n"
            )
        };
        fs::write(home.at("worker.toml"), accepts(&own)).unwrap();
        fs::write(home.at("other.toml"), accepts(&"11".repeat(32))).unwrap();
        let (server, address) = home.start(&format!("keyserver serve --dir keys {SAMPLE}"));
        Self { home, server, address }
    }

    /// The command of a worker that gets its key from the server.
    pub(crate) fn worker(&self, more: &str) -> String {
        let from = format!("--keyserver {} --server-certificate keys/tls.crt", self.address);
        format!("enclave --sealed m.sealed {from} --listen 127.0.0.1:0 --allow-swap {SAMPLE} {more}")
    }

    pub(crate) fn start(&self, more: &str) -> (Service, String) {
        self.home.start(&self.worker(more))
    }

    /// A key cache of the server; its address.
    pub(crate) fn start_cache(&self) -> (Service, String) {
        let Self { home, address, .. } = self;
        home.ok(&format!("keycache init --dir cache --server {address} --server-certificate keys/tls.crt"));
        fs::copy(home.at("key.toml"), home.at("cache/policies/key.toml")).unwrap();
        home.start(&format!("keycache serve --dir cache --sealing-key-file-insecure seal.key {SAMPLE}"))
    }
}

/// The command of a client with one of the digits.
pub(crate) fn ask(address: &str, more: &str) -> String {
    let [picture, preprocess] = ["7.png", "preprocess.toml"].map(|name| digits(name).display().to_string());
    format!(
        "enclave ask {address} --policy worker.toml --input {picture} --preprocess {preprocess} {SAMPLE} {more}"
    )
}

pub(crate) fn json(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(line).unwrap()
}

/// Waits for a process to end by itself.
pub(crate) fn ends(service: &mut Service) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = service.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(start.elapsed() < PATIENCE, "still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}
