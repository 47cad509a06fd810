//! What other systems take for the same models.
//!
//! "Measured" figures are from 2026-11: a 2-core Xeon (AVX-512, IFMA, VAES), all parties on one busy machine over loopback,
//! batch 1, random weights; CPU seconds of all parties together, bytes in all directions. "Paper" figures come from
//! publications, on their authors' machines. Megabytes are 10^6 bytes.
//!
//! Ours beside them go online from the input to the output. What is agreed on before is not in them; LLAMA has nothing of the kind: its
//! parties read files of keys that they are given by name, and nothing keeps them from reading one twice.

/// One system on one model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) model: &'static str,
    pub(super) system: &'static str,
    pub(super) source: Source,
    /// Seconds of CPU online; everything, where a system has no offline phase.
    pub(super) cpu_s: Option<f64>,
    /// Seconds of CPU that prepare the material.
    pub(super) offline_cpu_s: Option<f64>,
    /// Wall-clock seconds.
    pub(super) wall_s: Option<f64>,
    /// Megabytes sent online.
    pub(super) megabytes: Option<f64>,
    pub(super) rounds: Option<u64>,
    /// Megabytes of one-time material.
    pub(super) stored_megabytes: Option<f64>,
    pub(super) note: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Measured,
    Paper,
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Paper => "paper",
        }
    }
}

const CRYPTEN: &str = "CrypTen 2PC";
const SYTORCH: &str = "Sytorch LLAMA 2PC";
const SPU: &str = "SPU ABY3 3PC";
const HPMPC: &str = "HPMPC Trio 3PC";
const CRYPTGPU: &str = "CryptGPU 3PC";
const FALCON: &str = "Falcon 3PC";

/// A measured row.
const fn measured(
    model: &'static str,
    system: &'static str,
    cpu_s: f64,
    megabytes: f64,
    rounds: Option<u64>,
    note: &'static str,
) -> Peer {
    Peer {
        model,
        system,
        source: Source::Measured,
        cpu_s: Some(cpu_s),
        offline_cpu_s: None,
        wall_s: None,
        megabytes: Some(megabytes),
        rounds,
        stored_megabytes: None,
        note,
    }
}

/// A measured row of a system with a dealer.
const fn dealt(peer: Peer, offline_cpu_s: f64, stored_megabytes: f64) -> Peer {
    Peer { offline_cpu_s: Some(offline_cpu_s), stored_megabytes: Some(stored_megabytes), ..peer }
}

/// A published row.
const fn paper(
    model: &'static str,
    system: &'static str,
    wall_s: f64,
    megabytes: Option<f64>,
    note: &'static str,
) -> Peer {
    let wall_s = Some(wall_s);
    let none = measured(model, system, 0.0, 0.0, None, note);
    Peer { source: Source::Paper, cpu_s: None, wall_s, megabytes, ..none }
}

/// Which LeNet was measured is not recorded: 0.19 MB are too few for the 15,220 comparisons of 20 and 50 filters.
const SMALL_LENET: &str =
    "dealer's seed is a constant; taken to be the LeNet of 6 and 16 filters, lenet5 here";

pub(super) static PEERS: &[Peer] = &[
    dealt(measured("lenet", SYTORCH, 0.14, 0.19, Some(30), SMALL_LENET), 0.08, 16.8),
    dealt(measured("lenet5", SYTORCH, 0.14, 0.19, Some(30), SMALL_LENET), 0.08, 16.8),
    measured("lenet", CRYPTEN, 0.18, 14.0, Some(32), "insecure in-process provider"),
    measured("lenet", SPU, 0.59, 3.6, Some(46), ""),
    measured("lenet", HPMPC, 0.03, 0.9, Some(34), "l = 64, f = 13; at most 0.03 CPU s, wall 5 ms"),
    paper("lenet", CRYPTGPU, 0.38, None, "3 V100, LAN"),
    paper("lenet", FALCON, 0.038, None, "CPU"),
    dealt(measured("minionn-cifar", SYTORCH, 4.8, 9.0, Some(32), ""), 4.2, 980.0),
    measured("alexnet-cifar", CRYPTEN, 0.94, 67.8, Some(72), ""),
    measured("alexnet-cifar", SPU, 0.57, 2.8, Some(105), ""),
    paper("alexnet-cifar", CRYPTGPU, 0.91, None, "3 V100, LAN"),
    measured("vgg16-cifar", CRYPTEN, 3.6, 370.0, Some(152), ""),
    measured("vgg16-cifar", SPU, 12.9, 60.0, Some(217), ""),
    measured("vgg16-cifar", HPMPC, 0.76, 37.0, Some(211), "l = 64, f = 13; wall 0.41 s"),
    paper("vgg16-cifar", CRYPTGPU, 2.14, Some(56.0), "3 V100, LAN"),
    paper("vgg16-cifar", FALCON, 1.44, None, "CPU"),
    paper("vgg16-cifar", "Piranha 3PC", 0.48, None, "GPU"),
    paper("vgg16-cifar", "Antelope 3PC", 0.13, None, "GPU"),
    dealt(
        measured("resnet18", SYTORCH, 76.0, 133.5, Some(93), "no batch normalisation; 5.8 GB RSS per party"),
        63.0,
        14_100.0,
    ),
    measured("resnet18", CRYPTEN, 26.6, 2730.0, Some(175), "wrong result (padded average pool)"),
    measured("resnet18", SPU, 34.3, 520.0, Some(246), ""),
    measured("resnet50", CRYPTEN, 128.0, 13_400.0, Some(496), "wrong result"),
    measured("resnet50", SPU, 75.0, 2300.0, Some(692), ""),
    measured("resnet50", HPMPC, 13.6, 1840.0, None, "l = 64, f = 13; wall 6.2 s"),
    measured("resnet50", HPMPC, 10.1, 710.0, None, "l = 32, f = 5; logits off by up to 0.2"),
    paper("resnet50", CRYPTGPU, 9.31, Some(3080.0), "3 V100, LAN"),
    paper("resnet50", "Cheetah 2PC", 150.0, Some(2300.0), "no dealer; less than 2.5 min over a WAN"),
    paper("resnet50", "MP-SPDZ 3PC", 134.0, None, "replicated ring, one thread; 10 s on 32"),
    paper("resnet101", CRYPTGPU, 17.6, None, "3 V100, LAN"),
    paper("resnet152", CRYPTGPU, 25.8, Some(6560.0), "3 V100, LAN"),
    paper("alexnet-imagenet", CRYPTGPU, 1.52, None, "3 V100, LAN"),
    paper("vgg16-imagenet", CRYPTGPU, 9.44, Some(2750.0), "3 V100, LAN"),
];

/// What is known of other systems on a model.
pub(super) fn on(model: &str) -> impl Iterator<Item = &'static Peer> {
    PEERS.iter().filter(move |p| p.model == model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_compared_on_models_that_exist() {
        for peer in PEERS {
            assert!(privet::bench::names().any(|n| n == peer.model), "{}", peer.model);
            assert!(peer.cpu_s.is_some() == (peer.source == Source::Measured), "{peer:?}");
            assert!(peer.cpu_s.or(peer.wall_s).is_some_and(|s| s > 0.0), "{peer:?}");
        }
    }
}
