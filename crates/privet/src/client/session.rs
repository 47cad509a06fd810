//! Inferences over one connection. Each is agreed on before there is an input: the server chooses one of the bundles that the
//! client offers, and both burn their halves. What is left then goes from the input to the output:
//!
//! ```no_run
//! # use privet::client::{ClientOptions, Session};
//! # fn ask(config: privet::PartyConfig, options: ClientOptions, mut input: impl FnMut() -> Vec<Vec<i64>>) -> Result<(), privet::Error> {
//! let mut agreed = Session::open(config, &options, 10, &privet::events::Silent)?;
//! let report = loop {
//!     let (outputs, session) = agreed.infer(&input())?;
//!     println!("{outputs:?}");
//!     if session.left() == 0 {
//!         break session.close()?;
//!     }
//!     agreed = session.agree()?;
//! };
//! # Ok(())
//! # }
//! ```

use privet_net::{Channel, TlsChannel, Traffic};
use privet_plan::Plan;
use privet_protocols::masked::{self, Bundle, Online, Role, Schedule};

use super::{ClientOptions, Outputs, SESSIONS, agreed, connect, unexpected};
use crate::config::{CONFIG_FILE, PartyConfig, PartyRole};
use crate::error::{Error, StoreError};
use crate::events::{Event, Observer, Phase, Report};
use crate::session::{Meter, Steps, Stopwatch};
use crate::store::{self, BundleId, Database, Material, Prefetch, Purpose, Transaction, crash_point};
use crate::wire::{self, Choice, ClientHello, MAX_BUNDLES, OFFERED, Offer, ServerHello, Take};

/// A connection to the server, over which more inferences can be agreed on.
pub struct Session<'a> {
    config: PartyConfig,
    database: Database,
    plan: Plan,
    schedule: Schedule,
    purpose: Purpose,
    channel: TlsChannel,
    observer: &'a dyn Observer,
    meter: Meter,
    /// The number of the last inference that was agreed on.
    number: u64,
    /// Unused bundles: on offer, and not yet.
    offered: Vec<BundleId>,
    unoffered: std::vec::IntoIter<BundleId>,
    /// Inferences that can still be agreed on, and that were made.
    left: u64,
    made: u64,
}

/// An inference that both sides have agreed on: its one-time material is burnt, and waits for an input.
///
/// The server waits as long as for any message (`wait_seconds` of its configuration, 120 if that says nothing else). Then it gives the
/// inference up, and the material is lost.
pub struct Agreed<'a> {
    session: Session<'a>,
    bundle: Bundle<Prefetch>,
}

/// One private inference on `inputs` (fixed-point integers, one vector per plan input). Returns the outputs if the client
/// learns them.
///
/// # Errors
/// As [`Session::open`] and [`Agreed::infer`]; inputs that do not fit the plan are refused before anything is agreed on.
pub fn online(
    config: PartyConfig,
    inputs: &[Vec<i64>],
    options: &ClientOptions,
    observer: &dyn Observer,
) -> Result<(Option<Outputs>, Report), Error> {
    let check = |plan: &Plan| Ok(masked::check_inputs(plan, inputs)?);
    let (outputs, session) = Session::open_for(config, options, 1, observer, check)?.infer(inputs)?;
    Ok((outputs, session.close()?))
}

impl<'a> Session<'a> {
    /// Connects to the server for `inferences`, at least one and at most 10,000, and agrees on the first. Fewer may be made.
    ///
    /// # Errors
    /// If there is not enough unused material, the server makes fewer, or server or connection fail.
    pub fn open(
        config: PartyConfig,
        options: &ClientOptions,
        inferences: u64,
        observer: &'a dyn Observer,
    ) -> Result<Agreed<'a>, Error> {
        Self::open_for(config, options, inferences, observer, |_| Ok(()))
    }

    /// [`Self::open`], if nothing is wrong with the plan.
    fn open_for(
        config: PartyConfig,
        options: &ClientOptions,
        inferences: u64,
        observer: &'a dyn Observer,
        check: impl FnOnce(&Plan) -> Result<(), Error>,
    ) -> Result<Agreed<'a>, Error> {
        let meter = Meter::start();
        let database = Database::open(&store::database_path(&config.state))?;
        let material = Material::open(&database, &config.state)?;
        let (plan, agreement) = agreed(&config, &database)?;
        if !config.allows(options.reveal_to) {
            let (to, file) = (options.reveal_to, config.dir.join(CONFIG_FILE));
            let text = format!("this configuration does not allow to reveal outputs to {to}");
            return Err(Error::NotReady(format!("{text}; add \"{to}\" to reveal_to in {}", file.display())));
        }
        check(&plan)?;
        let partner = config.peer(PartyRole::Server)?.pinned.fingerprint();
        let purpose = Purpose { peer: partner, plan: agreement.plan, epoch: agreement.epoch };
        let number: u64 = database.get(SESSIONS, partner.as_bytes())?.unwrap_or(0);
        let bundles = material.ready(&purpose)?;
        check_count(inferences, bundles.len() as u64)?;
        let schedule = Schedule::new(&plan, options.reveal_to);
        let stopwatch = Stopwatch::start();
        let channel = connect(&config, options)?;
        let mut session = Session {
            config,
            database,
            plan,
            schedule,
            purpose,
            channel,
            observer,
            meter,
            number,
            offered: Vec::new(),
            unoffered: bundles.into_iter(),
            left: inferences,
            made: 0,
        };
        let hello = ClientHello::Online {
            plan: agreement.plan,
            epoch: agreement.epoch,
            session: number,
            inferences,
            offer: session.offer()?,
            reveal_to: options.reveal_to,
        };
        wire::greet(&mut session.channel, &hello)?;
        session.channel.count_round();
        session.choose(&stopwatch, Traffic::default(), |channel| match wire::greeted(channel)? {
            ServerHello::Online => Ok(()),
            ServerHello::Offline { .. } => Err(unexpected(channel, "answered another question")),
        })
    }

    /// How many more inferences can be agreed on.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Agrees on the next inference. The server has chosen its bundle already, unless others have to be offered.
    ///
    /// # Errors
    /// If the session was opened for no more, no material is left on both sides, or server or connection fail.
    pub fn agree(self) -> Result<Agreed<'a>, Error> {
        if self.left == 0 {
            let text = format!("this session was opened for {} inferences, and they are made", self.made);
            return Err(Error::NotReady(text));
        }
        let (stopwatch, before) = (Stopwatch::start(), self.channel.traffic());
        self.choose(&stopwatch, before, |_| Ok(()))
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn close(mut self) -> Result<Report, Error> {
        self.channel.shutdown()?;
        self.meter.connection(&self.channel);
        Ok(self.meter.report(PartyRole::Client.name(), Phase::Online, self.observer))
    }

    /// Learns which bundle the server has chosen, behind what it says `first`, and burns the own half.
    fn choose(
        mut self,
        stopwatch: &Stopwatch,
        before: Traffic,
        first: impl FnOnce(&mut TlsChannel) -> Result<(), Error>,
    ) -> Result<Agreed<'a>, Error> {
        // While the server makes its record: the bundle that it takes first. Nothing of it leaves before it is chosen, and burnt.
        let mut opened = self.offered.first().map(|&id| (id, self.open_bundle(id)));
        first(&mut self.channel)?;
        let Take { bundle, session } = self.chosen()?;
        if session <= self.number {
            let problem = "numbers this inference like an earlier one: its state is an old copy";
            return Err(unexpected(&self.channel, problem));
        }
        // Burnt durably before the first message that depends on it.
        let peer = self.purpose.peer;
        let number = |t: &Transaction| t.put(SESSIONS, peer.as_bytes(), &session);
        let opened = opened.take_if(|(id, _)| *id == bundle);
        let opened = opened.map_or_else(|| self.open_bundle(bundle), |(_, opened)| opened);
        let bundle = self.material().burn(bundle, &self.purpose, opened, number)?;
        self.number = session;
        self.left -= 1;
        self.meter.agreed(stopwatch.span(), self.channel.traffic().since(before));
        crash_point("inference agreed");
        Ok(Agreed { session: self, bundle })
    }

    /// What the server takes. It is on offer no longer.
    fn chosen(&mut self) -> Result<Take, Error> {
        // Behind an inference, a choice follows the outputs: nobody has waited for it.
        let mut is_answer = self.made == 0;
        loop {
            let Choice { gone, take } = wire::receive(&mut self.channel)?;
            if is_answer {
                self.channel.count_round();
            }
            let used = self.material().discard(&self.purpose, &gone)?;
            self.offered.retain(|id| !gone.contains(id));
            if used > 0 {
                let text =
                    format!("the server has used or lost {used} bundles of this client: they were burnt");
                self.observer.event(&Event::Warning { text });
            }
            if let Some(take) = take {
                let place = self.offered.iter().position(|id| *id == take.bundle);
                let Some(place) = place else {
                    return Err(unexpected(&self.channel, "chose a bundle that is not on offer"));
                };
                self.offered.remove(place);
                return Ok(take);
            }
            if self.unoffered.as_slice().is_empty() {
                let hint = "no inference is prepared on both sides; run the offline phase again: `privet dealer`, `privet server \
                            offline` and `privet client offline`";
                return Err(Error::NotReady(hint.to_owned()));
            }
            let offer = self.offer()?;
            wire::send(&mut self.channel, &offer)?;
            self.channel.count_round();
            is_answer = true;
        }
    }

    /// The next bundles, filled up with random names. They take the place of those that were on offer.
    fn offer(&mut self) -> Result<Offer, Error> {
        self.offered = self.unoffered.by_ref().take(OFFERED).collect();
        let mut names = [BundleId([0; 16]); OFFERED];
        for (i, name) in names.iter_mut().enumerate() {
            *name = match self.offered.get(i) {
                Some(id) => *id,
                None => BundleId(*store::fresh_seed()?.expose()),
            };
        }
        Ok(Offer(names))
    }

    fn material(&self) -> Material<'_> {
        Material::attach(&self.database, &self.config.state)
    }

    fn open_bundle(&self, id: BundleId) -> Result<Bundle<Prefetch>, StoreError> {
        let Self { purpose, plan, schedule, .. } = self;
        self.material().open_bundle(id, purpose, plan, schedule, Role::Client)
    }
}

impl<'a> Agreed<'a> {
    /// The plan that an input has to fit.
    pub fn plan(&self) -> &Plan {
        &self.session.plan
    }

    /// The inference, on `inputs` (fixed-point integers, one vector per plan input). Returns the outputs if the client learns them, and
    /// the session.
    ///
    /// # Errors
    /// If the inputs do not fit the plan, or server or connection fail. The material is lost then, and the session over.
    pub fn infer(self, inputs: &[Vec<i64>]) -> Result<(Option<Outputs>, Session<'a>), Error> {
        let Self { mut session, bundle } = self;
        let stopwatch = Stopwatch::start();
        let Session { plan, schedule, channel, observer, meter, made, .. } = &mut session;
        let mut steps = Steps { observer: *observer, phase: Phase::Online, inference: *made };
        let outputs = masked::online(plan, schedule, Online::Client(inputs), bundle, channel, &mut steps)?;
        meter.worked(&stopwatch);
        steps.done(schedule.instructions.len());
        meter.inference();
        *made += 1;
        Ok((outputs, session))
    }

    /// Says goodbye without an input. The material is lost.
    ///
    /// # Errors
    /// If the connection fails.
    pub fn close(self) -> Result<Report, Error> {
        self.session.close()
    }
}

/// Refuses a session for so many inferences, where bundles for `held` are left.
fn check_count(inferences: u64, held: u64) -> Result<(), Error> {
    let hint = "run `privet client offline --count N` with dealer and server running";
    let problem = match inferences {
        0 => "a session is for at least one inference".to_owned(),
        n if n > MAX_BUNDLES => format!("{n} inferences: a session is for at most {MAX_BUNDLES}"),
        _ if held == 0 => format!("no one-time material is left; {hint}"),
        n if n > held => format!("one-time material for {held} of {n} inferences is left; {hint}"),
        _ => return Ok(()),
    };
    Err(Error::NotReady(problem))
}
