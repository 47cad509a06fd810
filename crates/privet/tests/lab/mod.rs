//! Real parties on loopback: directories made by `setup`, threads instead of processes, everything else as in production.

#![allow(unreachable_pub, dead_code, reason = "shared by test files, each of which uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use privet::client::{self, ClientOptions};
use privet::dealer::{self, DealerOptions};
use privet::model::{CompileOptions, LoadedModel, compile, fixed_inputs};
use privet::server::{self, ServerOptions};
use privet::setup::{SetupOptions, setup};
use privet::{Error, Event, Observer, PartyConfig, PartyRole, Preprocess, Report, input};

/// Longer than anything takes that has to happen, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps warnings and tells where a party listens.
pub struct Watcher {
    address: Mutex<Option<Sender<String>>>,
    pub warnings: Mutex<Vec<String>>,
}

impl Observer for Watcher {
    fn event(&self, event: &Event) {
        match event {
            Event::Listening { address } => {
                if let Some(sender) = self.address.lock().unwrap().take() {
                    sender.send(address.clone()).unwrap();
                }
            }
            Event::Warning { text } => self.warnings.lock().unwrap().push(text.clone()),
            _ => {}
        }
    }
}

/// A party that listens, on a thread of its own.
pub struct Service {
    pub address: String,
    pub watcher: Arc<Watcher>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Report, Error>>>,
}

impl Service {
    fn start(
        run: impl FnOnce(Arc<AtomicBool>, &dyn Observer) -> Result<Report, Error> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = channel();
        let watcher = Arc::new(Watcher { address: Mutex::new(Some(sender)), warnings: Mutex::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let (own_stop, own_watcher) = (stop.clone(), watcher.clone());
        let thread = std::thread::spawn(move || run(own_stop, &*own_watcher));
        let address = receiver.recv_timeout(PATIENCE).expect("the service listens");
        Self { address, watcher, stop, thread: Some(thread) }
    }

    /// Waits until it has ended by itself.
    pub fn join(mut self) -> Report {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    /// As Ctrl-C does.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn warnings(&self) -> String {
        self.watcher.warnings.lock().unwrap().join("\n")
    }

    /// Waits until a warning with this text appears.
    pub fn expect_warning(&self, text: &str) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.warnings().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("no warning with {text:?} in: {}", self.warnings());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A dealer, a server and clients with the digit model.
pub struct Lab {
    pub dir: tempfile::TempDir,
}

pub fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/digits")
}

pub fn digit(n: u32, plan: &privet::Plan) -> Vec<Vec<i64>> {
    let preprocess = input::preprocess_from_str_or_file(assets().join("preprocess.toml").to_str().unwrap());
    let preprocess: Preprocess = preprocess.unwrap();
    let image = input::load(&assets().join(format!("{n}.png")), &preprocess, &plan.inputs[0].shape).unwrap();
    fixed_inputs(plan, &[image]).unwrap()
}

impl Lab {
    pub fn new(clients: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Self { dir };
        lab.set_up("parties", clients);
        lab.compile("model", None);
        lab
    }

    pub fn set_up(&self, name: &str, clients: &[&str]) {
        setup(&SetupOptions {
            out: self.dir.path().join(name),
            server: "127.0.0.1:7101".to_owned(),
            dealer: "127.0.0.1:7100".to_owned(),
            clients: clients.iter().map(|&c| c.to_owned()).collect(),
        })
        .unwrap();
    }

    pub fn compile(&self, name: &str, frac_bits: Option<u32>) {
        let options = CompileOptions { frac_bits, ..CompileOptions::default() };
        compile(&assets().join("digits.onnx"), &options).unwrap().save(&self.path(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, name: &str, role: PartyRole) -> PartyConfig {
        self.config_in("parties", name, role)
    }

    pub fn config_in(&self, parties: &str, name: &str, role: PartyRole) -> PartyConfig {
        let mut config = PartyConfig::load(&self.path(parties).join(name), role).unwrap();
        config.deadlines.wait = PATIENCE;
        config.deadlines.connect = PATIENCE;
        config.deadlines.handshake = PATIENCE;
        config
    }

    pub fn model(&self, name: &str) -> LoadedModel {
        LoadedModel::load(&self.path(name)).unwrap()
    }

    pub fn dealer(&self) -> Service {
        let config = self.config("dealer", PartyRole::Dealer);
        Service::start(move |stop, observer| {
            let options = DealerOptions { listen: Some("127.0.0.1:0".into()), bundles: None, stop };
            dealer::serve(config, &options, observer)
        })
    }

    pub fn server_offline(&self, model: &str, dealer: &Service, count: u64) -> Service {
        let (config, model) = (self.config("server", PartyRole::Server), self.model(model));
        let dealer = Some(dealer.address.clone());
        Service::start(move |stop, observer| {
            let listen = Some("127.0.0.1:0".into());
            let options = ServerOptions { listen, dealer, count, sessions: None, stop };
            server::offline(config, model, &options, observer)
        })
    }

    pub fn server_online(&self, model: &str) -> Service {
        self.serve_online(model, None, None)
    }

    /// For so many inferences.
    pub fn server_online_for(&self, model: &str, sessions: u64) -> Service {
        self.serve_online(model, Some(sessions), None)
    }

    /// That waits no longer for anything.
    pub fn server_online_hurried(&self, model: &str, wait: Duration) -> Service {
        self.serve_online(model, None, Some(wait))
    }

    fn serve_online(&self, model: &str, sessions: Option<u64>, wait: Option<Duration>) -> Service {
        let (mut config, model) = (self.config("server", PartyRole::Server), self.model(model));
        config.deadlines.wait = wait.unwrap_or(config.deadlines.wait);
        Service::start(move |stop, observer| {
            let listen = Some("127.0.0.1:0".into());
            let options = ServerOptions { listen, dealer: None, count: 0, sessions, stop };
            server::online(config, model, &options, observer)
        })
    }

    pub fn client_offline(
        &self,
        name: &str,
        server: &Service,
        dealer: &Service,
        count: u64,
    ) -> Result<Report, Error> {
        let options = ClientOptions {
            server: Some(server.address.clone()),
            dealer: Some(dealer.address.clone()),
            count,
            ..ClientOptions::default()
        };
        client::offline(self.config(name, PartyRole::Client), &options, &privet::events::Silent)
    }

    /// Classifies a digit privately.
    pub fn client_online(&self, name: &str, server: &Service, n: u32) -> Result<Vec<i64>, Error> {
        let config = self.config(name, PartyRole::Client);
        let inputs = digit(n, &client::plan(&config)?);
        let options = ClientOptions { server: Some(server.address.clone()), ..ClientOptions::default() };
        let (outputs, _) = client::online(config, &inputs, &options, &privet::events::Silent)?;
        Ok(outputs.expect("the client learns the output").remove(0))
    }

    /// The whole offline phase with one dealer, for clients in turn.
    pub fn prepare(&self, model: &str, clients: &[&str], count: u64) {
        let dealer = self.dealer();
        let server = self.server_offline(model, &dealer, count);
        for client in clients {
            self.client_offline(client, &server, &dealer, count).unwrap();
        }
        server.join();
    }

    /// Removes a party's state.
    pub fn forget(&self, party: &str) {
        std::fs::remove_dir_all(self.path("parties").join(party).join("state")).unwrap();
    }

    /// Checks that a server online answers the client about these digits as the reference does.
    pub fn answers(&self, model: &str, digits: &[u32]) {
        let server = self.server_online(model);
        for &n in digits {
            assert_eq!(self.client_online("client", &server, n).unwrap(), self.reference(model, n));
        }
    }

    /// What the digit model gives in the clear.
    pub fn reference(&self, model: &str, n: u32) -> Vec<i64> {
        let model = self.model(model);
        let inputs = digit(n, &model.plan);
        let mut silent = privet_protocols::Silent;
        privet_protocols::cleartext::run(&model.plan, &model.weights, &inputs, &mut silent).unwrap().remove(0)
    }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
