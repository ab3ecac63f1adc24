//! The `freetumor` command: parse, run, report, exit code.

use std::process::ExitCode;

use freetumor::cli::Cli;
use freetumor::nn::kernel::prepare_process;

fn main() -> ExitCode {
    prepare_process(1);
    let cli = Cli::parse_arguments();
    match cli.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli.print_error(&error);
            ExitCode::from(2)
        }
    }
}
