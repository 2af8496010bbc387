//! Transcript tests: commands and the output they must give, side by side in files that a person can read.
//!
//! The files are goldenscripts (see the `goldenscript` crate for the whole syntax): blocks of commands, `---`, the
//! output, a blank line; `#` begins a comment. A command is a name with arguments (`put a`, `put a context=alice`), a
//! prefix before it (`n1: put a`) is repeated before its output, `(put a)` hides the output, `n1: !put a` must fail.
//!
//! To test a module with them:
//!
//! 1. Implement [`goldenscript::Runner`] for a struct that holds the state of one file, in a `transcripts` module
//!    beside the code. With `type Command = goldenscript::Command` the command arrives as it was parsed;
//!    `goldenscript::Command` can also be derived for an enum. `Context::prefix` has the prefix.
//! 2. Write files, without output at first, into `tests/transcripts/MODULE/*.txt`.
//! 3. Call [`run`] from a `#[test]`: `transcript::run("MODULE", Runner::default)`. Each file gets a new runner.
//! 4. `UPDATE_TRANSCRIPTS=1 cargo test -p quorate-protocol transcripts` writes the output into the files. Read the
//!    difference before committing it: what is in the file is what the test demands from then on.
//!
//! `versions/transcripts.rs` is an example.

use std::fs;
use std::path::{Path, PathBuf};

use goldenscript::Runner;

/// Runs all files of `tests/transcripts/FOLDER`, each with a runner of its own.
///
/// # Panics
/// If a file's output differs, a command fails that was not expected to, or there are no files; names all such files.
pub(crate) fn run<R: Runner>(folder: &str, new_runner: impl Fn() -> R) {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1");
    run_or_update(folder, new_runner, update);
}

fn run_or_update<R: Runner>(folder: &str, new_runner: impl Fn() -> R, update: bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(folder);
    let files = transcripts_in(&folder);
    assert!(!files.is_empty(), "no *.txt in {}", folder.display());
    let mut failures = Vec::new();
    for path in files {
        // Shown when the runner panics, since the panic does not know the file.
        println!("transcript {}", path.display());
        let script = fs::read_to_string(&path).expect("the transcript is readable");
        match goldenscript::generate(&mut new_runner(), &script) {
            Err(error) => failures.push(format!("{}: {error}", path.display())),
            Ok(output) if output == script => {}
            Ok(output) if update => fs::write(&path, output).expect("the transcript is writable"),
            Ok(output) => failures.push(format!("{}: {}", path.display(), difference(&script, &output))),
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n\nIf the new output is right, run again with UPDATE_TRANSCRIPTS=1 and review the difference.",
        failures.join("\n\n")
    );
}

fn transcripts_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The first line at which the two differ, with a few lines of each.
fn difference(expected: &str, actual: &str) -> String {
    let same = expected
        .lines()
        .zip(actual.lines())
        .take_while(|(expected, actual)| expected == actual)
        .count();
    let excerpt = |text: &str, mark: &str| -> String {
        text.lines()
            .skip(same)
            .take(5)
            .map(|line| format!("\n{mark} {line}"))
            .collect()
    };
    format!(
        "line {} differs{}{}",
        same + 1,
        excerpt(expected, "expected"),
        excerpt(actual, "actual  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_line_is_named_with_both_sides() {
        let shown = difference("a\nb\nc\n", "a\nx\nc\n");
        assert_eq!(
            shown,
            "line 2 differs\nexpected b\nexpected c\nactual   x\nactual   c"
        );
        assert_eq!(difference("a\n", "a\nb\n"), "line 2 differs\nactual   b");
    }

    #[test]
    #[should_panic(expected = "no_such_folder")]
    fn a_missing_folder_is_not_a_passing_test() {
        run("no_such_folder", || Echo);
    }

    struct Echo;

    impl Runner for Echo {
        type Command = goldenscript::Command;

        fn run(
            &mut self,
            command: &goldenscript::Command,
            _context: &goldenscript::Context,
        ) -> Result<String, Box<dyn std::error::Error>> {
            Ok(command.to_string())
        }
    }

    #[test]
    #[should_panic(expected = "wrong.txt: line 4 differs")]
    fn a_wrong_output_fails() {
        run_or_update("transcript", || Echo, false);
    }
}
