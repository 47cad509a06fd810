//! `privet launch`: starts the three parties of a cluster on their hosts over ssh, and brings back what they say and find.
//!
//! In four steps, each on all hosts at a time: copy configuration and shares into a new directory there, run the party, fetch its
//! results, remove the directory. Nothing but ssh, sh, tar and privet is needed there. A party ends when launch does, however
//! that ends: see [`commands`].

mod commands;
mod crew;
mod job;
mod local;
mod summary;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::args::hosts::Host;
use crate::args::launch::LaunchArgs;
use crate::exit::{Code, Failure};
use crate::show::print;
use crate::watch::Watch;
use commands::{Commands, Target, line};
use crew::{Crew, Member, note};
use job::Job;
use local::Local;

/// How long removing the directories may take.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn launch(args: &LaunchArgs) -> anyhow::Result<()> {
    let local = Local::find(args)?;
    for warning in &local.warnings {
        note(&format!("warning: {warning}"));
    }
    let out =
        std::path::absolute(&args.out).with_context(|| format!("no path for {}", args.out.display()))?;
    let commands = commands(args, &local, &out)?;
    if args.dry_run {
        return dry_run(&commands, args.keep);
    }
    let watch = Watch::start(Duration::from_secs(args.deadline))?;
    let mut crew = crew(args, local, commands)?;
    let outcome = work(&mut crew, &watch);
    let removed = remove(&mut crew, args.keep);
    summary::print(&crew.members, args)?;
    outcome.and(removed)?;
    summary::verdict(&crew.members)
}

fn commands(args: &LaunchArgs, local: &Local, out: &Path) -> anyhow::Result<Vec<Commands>> {
    let dir = args.dir.clone().unwrap_or_else(fresh_name);
    let one = |(index, (name, host)): (usize, &(String, Host))| {
        let commands = Commands::new(&Target {
            host,
            user: args.ssh.as_deref(),
            index,
            name,
            dir: &dir,
            command: &local.command,
            keep: args.keep,
            sources: &local.sources,
            results: &out.join(name),
        });
        commands.map_err(|e| Failure::error(Code::Usage, format!("a word that no shell can be given: {e}")))
    };
    local.parties.iter().enumerate().map(one).collect()
}

/// A name that is hardly taken; were it, the launch would fail and touch nothing.
fn fresh_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("privet-launch-{now:x}-{{index}}")
}

/// Shows every command, step by step.
fn dry_run(commands: &[Commands], keep: bool) -> anyhow::Result<()> {
    for c in commands {
        print(&format!("{} | {}", line(&c.pack), line(&c.copy)))?;
    }
    commands.iter().try_for_each(|c| print(&line(&c.run)))?;
    for c in commands {
        print(&format!("{} | {}", line(&c.fetch), line(&c.unpack)))?;
    }
    let remove = commands.iter().filter(|_| !keep);
    remove.map(|c| line(&c.remove)).try_for_each(|line| print(&line))
}

fn crew(args: &LaunchArgs, local: Local, commands: Vec<Commands>) -> anyhow::Result<Crew> {
    let old = local.parties.iter().map(|(name, _)| args.out.join(name));
    if let Some(dir) =
        old.into_iter().find(|dir| dir.read_dir().is_ok_and(|mut files| files.next().is_some()))
    {
        let text = format!(
            "{}: holds results already, and nothing is overwritten; choose another --out, or remove it",
            dir.display()
        );
        return Err(Failure::error(Code::Input, text));
    }
    private_dir(&args.out)?;
    let parties = local.parties;
    let is_taken = |host: &Host| parties.iter().filter(|(_, other)| other == host).count() > 1;
    // One host may run several parties.
    let label = |(name, host): &(String, Host)| {
        if is_taken(host) { format!("{host}/{name}") } else { host.to_string() }
    };
    let labels: Vec<String> = parties.iter().map(label).collect();
    let members = parties.into_iter().zip(labels).zip(commands);
    let members = members.map(|((party, label), commands)| Member::new(party, label, commands, &args.out));
    let program = local.command.first().map_or("", String::as_str);
    let path = if args.command.is_empty() { " with --privet PATH" } else { "" };
    let not_found = format!(
        "{program}: not found on the PATH that commands of ssh get there; install it, or give its path{path}"
    );
    Ok(Crew::new(members.collect::<anyhow::Result<_>>()?, not_found))
}

/// Copies, runs and fetches, as long as all goes well. What fails on a host is noted there; an error is about all.
fn work(crew: &mut Crew, watch: &Watch) -> anyhow::Result<()> {
    let check = || watch.check();
    let sender = crew.sender();
    note("copying configurations and shares");
    let copies = jobs(crew, |host, c| Job::send(host, &c.pack, &c.copy, &sender))?;
    let (ended, verdict) = crew.wait("copying", copies, check)?;
    for (host, ended) in ended {
        // What the script there could not finish, it has removed.
        crew.members[host].is_made = ended.ssh.success();
    }
    verdict?;
    if crew.has_failed() {
        return Ok(());
    }
    note("running");
    let runs = jobs(crew, |host, c| Job::run(host, &c.run, &sender))?;
    let (ended, verdict) = crew.wait("running", runs, check)?;
    for (host, ended) in ended {
        crew.members[host].ended = Some(ended);
    }
    verdict?;
    if crew.has_failed() {
        return Ok(());
    }
    note("fetching results");
    crew.members.iter().try_for_each(|member| private_dir(&member.results))?;
    let fetches = jobs(crew, |host, c| Job::receive(host, &c.fetch, &c.unpack, &sender))?;
    let (ended, verdict) = crew.wait("fetching results", fetches, check)?;
    for (host, _) in ended.into_iter().filter(|(_, ended)| ended.is_well()) {
        let member = &mut crew.members[host];
        member.fetched = files(&member.results);
    }
    verdict
}

/// The files in a directory, by name; what lies deeper is there as well, but not listed.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut files: Vec<PathBuf> = files.map(|file| file.path()).collect();
    files.sort();
    files
}

/// A job on every host.
fn jobs(crew: &Crew, start: impl Fn(usize, &Commands) -> anyhow::Result<Job>) -> anyhow::Result<Vec<Job>> {
    crew.members.iter().enumerate().map(|(host, member)| start(host, &member.commands)).collect()
}

/// Removes the directories that were made, or says where they are. Nothing else can go wrong any more: a host that cannot be
/// reached is named, and what ran well has run well.
fn remove(crew: &mut Crew, keep: bool) -> anyhow::Result<()> {
    let made: Vec<usize> = (0..crew.members.len()).filter(|&host| crew.members[host].is_made).collect();
    if keep {
        for member in made.iter().map(|&host| &crew.members[host]) {
            note(&format!("{}: {} is kept, with the party's private key", member.label, member.commands.dir));
        }
        return Ok(());
    }
    let (sender, started) = (crew.sender(), Instant::now());
    let jobs = made.iter().map(|&host| Job::run(host, &crew.members[host].commands.remove, &sender));
    let jobs = jobs.collect::<anyhow::Result<Vec<_>>>()?;
    let check = || match started.elapsed() > REMOVE_LIMIT {
        true => Err(Failure::error(Code::Peer, "the directories on the hosts could not be removed in time")),
        false => Ok(()),
    };
    // One that cannot be reached does not keep the others' from going.
    let (ended, verdict) = crew.wait_for_each(jobs, check)?;
    for (host, _) in ended.iter().filter(|(_, ended)| !ended.is_well()) {
        let Member { label, commands, .. } = &crew.members[*host];
        note(&format!(
            "{label}: warning: {} could not be removed; it holds the party's private key",
            commands.dir
        ));
    }
    verdict
}

fn private_dir(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}
