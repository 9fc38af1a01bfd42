//! The program `benches`: everything is in the library.

fn main() -> std::process::ExitCode {
    gtn::cli::program(|command| benches::run(&command))
}
