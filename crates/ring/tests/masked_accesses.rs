//! What an AVX-512 mask leaves out is not read, and whoever takes pages away from a process sees which. So no access to memory may
//! be under a mask that was made of data, in the half-trees and lookups, whose data are secret; masks of the last, partial vector
//! are made of numbers. Compilers merge loads with what uses them under a mask, so this looks at the program: at the instructions of
//! this test, with `objdump`. Without optimisation there is nothing to merge.

#![cfg(target_arch = "x86_64")]

use std::hint::black_box;
use std::process::Command;

use privet_ring::blocks::Hash;
use privet_ring::prg::Seed;

/// All that is to be looked at, so that it is in the program.
fn run_everything() {
    let hash = Hash::new(&Seed::from_bytes([1; 16]));
    let n = black_box(37);
    let (mut nodes, mut sums, mut more) = (vec![1u128; n], vec![2; n], vec![3; n]);
    let (mut words, x) = (vec![[4; 16]; n], vec![[5; 2]; n]);
    hash.split(&mut nodes, &sums, &x, 3, &mut words);
    hash.descend(&mut nodes, &words, &x, 3, &mut sums);
    hash.children(&nodes, &words, &mut sums, &mut more);
    hash.leaves_below(&nodes, &sums, 6, &x, &mut words);
    hash.look_up(&nodes, 6, &words, &x, &sums, &mut [0]);
    black_box((hash.sum_selected(&more, 1, &[7; 300]), nodes, sums));
}

/// Writers of masks, line by line: an access under a mask that an instruction on data has written.
fn offending(listing: &str) -> (usize, Vec<String>) {
    let (mut looked_at, mut inside, mut in_sums, mut found) = (0, false, false, Vec::new());
    let mut from_data = [false; 8];
    for line in listing.lines() {
        if line.ends_with(">:") {
            // Sums take their masks from data without a test.
            in_sums = line.contains("sum_loop") || line.contains("sum_selected");
            inside = in_sums || line.contains("blocks") && line.contains("vaes");
            from_data = [false; 8];
            continue;
        }
        let Some((_, instruction)) = line.split_once(":\t").filter(|_| inside) else { continue };
        looked_at += 1;
        let number = |at: usize| instruction[at..].bytes().next().map(|digit| usize::from(digit - b'0') % 8);
        let mask = instruction.find("{k").and_then(|at| number(at + 2));
        if mask.is_some_and(|mask| in_sums || from_data[mask]) && instruction.contains("PTR [") {
            found.push(line.to_owned());
        }
        // The first operand, of what writes a mask.
        let operands = instruction.split_whitespace().nth(1).unwrap_or_default();
        if operands.starts_with('k') && operands[1..].starts_with(|c: char| c.is_ascii_digit()) {
            let written = usize::from(operands.as_bytes()[1] - b'0') % 8;
            from_data[written] = !instruction.starts_with("kmov") && !instruction.starts_with("kx");
        }
    }
    (looked_at, found)
}

#[test]
fn no_access_is_under_a_mask_made_of_data() {
    run_everything();
    let program = std::env::current_exe().unwrap();
    let objdump =
        Command::new("objdump").args(["-d", "--no-show-raw-insn", "-M", "intel"]).arg(program).output();
    let Ok(output) = objdump else {
        eprintln!("skipped: there is no objdump");
        return;
    };
    let (looked_at, found) = offending(&String::from_utf8_lossy(&output.stdout));
    assert!(looked_at > 500, "{looked_at} instructions found: are the functions named otherwise?");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_it_looks_for_is_found() {
    let listing = "0000 <privet_ring::blocks::vaes::descend_loop>:\n\
        1:\tvptestmq k1,zmm12,zmm24\n\
        2:\tvmovdqu64 zmm24{k1}{z},ZMMWORD PTR [rdx+rcx*1-0xc0]\n\
        3:\tkmovw  k1,ebp\n\
        4:\tvmovdqu64 zmm13{k1}{z},ZMMWORD PTR [rsi+rdi*1]\n\
        0000 <elsewhere>:\n\
        5:\tvptestmq k1,zmm12,zmm24\n\
        6:\tvpaddq zmm24{k1},zmm24,ZMMWORD PTR [rdx]\n\
        0000 <privet_ring::blocks::Hash::sum_selected>:\n\
        7:\tkmovb  k1,BYTE PTR [rsi]\n\
        8:\tvpaddq zmm24{k1},zmm24,zmm25\n\
        9:\tvpaddq zmm24{k1},zmm24,ZMMWORD PTR [rdx]\n";
    let (looked_at, found) = offending(listing);
    assert_eq!((looked_at, found.len()), (7, 2), "{found:?}");
    assert!(found[0].starts_with("2:") && found[1].starts_with("9:"), "{found:?}");
}
