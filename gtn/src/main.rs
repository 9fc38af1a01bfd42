//! The command line.

use clap::Parser;

#[derive(Parser)]
enum Cli {
    #[command(subcommand)]
    Bench(gtn::bench::Command),
}

fn main() -> anyhow::Result<()> {
    let Cli::Bench(command) = Cli::parse();
    gtn::bench::run(&command)
}
