//! Makes a history up, to try the checker on: `make-history MODEL OPERATIONS PROCESSES UNKNOWN% LIES% SEED >
//! FILE`.

#![allow(clippy::unwrap_used)] // It is run by hand.

#[path = "../tests/support/mod.rs"]
mod support;

use arca_jepsen::history::ModelName;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, numbers @ ..] = arguments.as_slice() else { return eprintln!("see the source") };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    let [operations, processes, unknown, lies, seed] = numbers.as_slice() else {
        return eprintln!("see the source");
    };
    let model = match model.as_str() {
        "list" => ModelName::List,
        "counter" => ModelName::Counter,
        "token" => ModelName::Token,
        "wrapping" => ModelName::Wrapping,
        _ => ModelName::Register,
    };
    let plan = support::Plan {
        model,
        processes: *processes,
        operations: *operations,
        unknown: *unknown,
        lies: *lies,
    };
    support::make(plan, *seed).write(std::io::stdout().lock()).unwrap();
}
