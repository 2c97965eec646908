//! The table of all contestants.

use std::collections::BTreeMap;

use crate::contestants::{self, Contestant};
use crate::goals::Figures;
use crate::measure::{Measured, median};
use crate::{BODY, MESSAGES, Plan};

/// Fewer messages than that measure mostly the prefetch.
const FEWEST: u32 = 500;

/// All rounds, and what they come to.
pub fn run(plan: &Plan, figures: &mut Figures) {
    let entered: Vec<&Contestant> = contestants::ALL
        .iter()
        .filter(|contestant| plan.has(contestant.name))
        .filter(|contestant| !contestant.baseline || contestants::baseline().is_some())
        .collect();
    if entered.is_empty() {
        return;
    }
    println!("\nDraining a queue: persistent messages of {BODY} bytes, {} rounds\n", plan.rounds);
    println!("{:>5}  {:18}  {:>8}  {:>10}  {:>8}", "round", "contestant", "messages", "messages/s", "CPU us");
    let mut all: BTreeMap<&'static str, Vec<Measured>> = BTreeMap::new();
    for round in 1..=plan.rounds {
        let mut order = entered.clone();
        if round % 2 == 0 {
            order.reverse();
        }
        for contestant in order {
            let messages = messages(contestant, plan);
            let measured = contestant.run(messages);
            println!(
                "{round:>5}  {:18}  {messages:>8}  {:>10.0}  {:>8.1}",
                contestant.name, measured.rate, measured.cpu
            );
            all.entry(contestant.name).or_default().push(measured);
        }
    }
    println!(
        "\nMedians. CPU is that of all processes, microseconds a message. Memory in MiB: what all had at one time, the"
    );
    println!("largest process.\n");
    println!(
        "{:18}  {:>8}  {:>10}  {:>15}  {:>8}  {:>8}  {:>8}",
        "contestant", "messages", "messages/s", "from - to", "CPU us", "all MiB", "largest"
    );
    for contestant in entered {
        let rows = &all[contestant.name];
        let of = |figure: fn(&Measured) -> f64| median(rows.iter().map(figure).collect());
        let rates = || rows.iter().map(|row| row.rate);
        println!(
            "{:18}  {:>8}  {:>10.0}  {:>15}  {:>8.1}  {:>8.1}  {:>8.1}",
            contestant.name,
            messages(contestant, plan),
            of(|row| row.rate),
            format!("{:.0} - {:.0}", rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max)),
            of(|row| row.cpu),
            rows.iter().map(|row| row.memory.tree).fold(0.0, f64::max),
            rows.iter().map(|row| row.memory.largest).fold(0.0, f64::max),
        );
    }
    figures.rows = all;
}

/// Of one drain.
fn messages(contestant: &Contestant, plan: &Plan) -> u32 {
    let scaled = f64::from(contestant.messages) * plan.messages as f64 / MESSAGES as f64;
    (scaled as u32).max(FEWEST)
}
