//! `arca audit verify`: checks an audit file's hash chain on any machine, without keys.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

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
    match arca_kernel::audit::chain::verify(BufReader::new(file)) {
        Ok(report) => {
            let (lines, chains) = (report.lines, report.chains.len());
            println!("{}: {lines} lines in {chains} chain(s), all as they were written", path.display());
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
