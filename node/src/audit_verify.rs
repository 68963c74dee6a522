//! `arca audit verify`: checks an audit file's hash chain on any machine, without keys.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use arca_kernel::audit::chain::{Found, verify};

/// Checks `path` and says what was found: 0 when the chain holds, 2 when it does not, 1 when it cannot be read.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(err) => {
            eprintln!("{}: {err}", path.display());
            return ExitCode::from(1);
        }
    };
    match verify(BufReader::new(file)) {
        Ok(report) if report.chains.is_empty() && report.lines > 0 => {
            eprintln!("{}: no audit line in {} line(s)", path.display(), report.lines);
            ExitCode::from(2)
        }
        Ok(report) => {
            let (lines, chains) = (report.lines, report.chains.len());
            println!(
                "{}: {lines} lines in {chains} chain(s), none changed and none missing between",
                path.display()
            );
            for chain in &report.chains {
                let Found { id, first_seq, last_seq, last_hash, .. } = chain;
                println!("chain {id}: links {first_seq} to {last_seq}, last hash {last_hash}");
            }
            println!(
                "Lines cut off at either end do not show here: compare with a last hash noted elsewhere."
            );
            for line in &report.torn_lines {
                println!(
                    "{}: line {line} was cut off by a crash; a chain that says so begins behind it",
                    path.display()
                );
            }
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("{}: {err}", path.display());
            ExitCode::from(2)
        }
    }
}
