//! `demo`: a cluster of real processes, one of which is killed while it is written to.
//!
//! | module | what for |
//! |---|---|
//! | `story` | what happens, in which order |
//! | `cluster`, `process` | the nodes, and that nothing of them is left behind |
//! | `folder`, `ports` | where they live and listen |
//! | `workload`, `expectation` | what is written, and what must follow from it |
//! | `verification` | whether it did |
//! | `leaders`, `report` | the table at the end |

mod cluster;
mod expectation;
mod folder;
mod leaders;
mod ports;
mod process;
mod report;
mod story;
mod verification;
mod workload;

use std::io;
use std::io::Write as _;
use std::process::ExitCode;

use raft_kv::config::ClusterConfig;

use crate::cli::arguments::Demo;
use crate::cli::exit::Exit;
use crate::cli::signals::StopSignals;

/// Runs the demo until it ends or is asked to stop. Either way, no process is left.
pub(crate) async fn run(arguments: &Demo) -> anyhow::Result<ExitCode> {
    // Before anything is made that a signal could leave behind.
    let mut stop = StopSignals::listen()?;
    tokio::select! {
        outcome = story::tell(arguments) => match outcome {
            Ok(()) => Ok(Exit::Done.into()),
            // For other commands that is a reader who has seen enough; here, nothing was shown yet.
            Err(error) if Exit::is_closed_output(&error) => {
                let left = left_behind(arguments);
                Err(anyhow::anyhow!("standard output was closed; all nodes were killed and nothing was checked{left}"))
            }
            Err(error) => Err(error),
        },
        signal = stop.next() => {
            // The story was dropped, and the cluster with it. The terminal may be gone.
            let name = signal.name();
            let _ = writeln!(io::stderr(), "{name}: stopped; all nodes were killed{}", left_behind(arguments));
            Ok(ExitCode::from(signal.exit_status()))
        }
    }
}

/// What stays after an early end, for a message.
fn left_behind(arguments: &Demo) -> String {
    match &arguments.keep {
        Some(folder) if folder.join(ClusterConfig::FILE_NAME).exists() => {
            format!("; configuration, data and logs stay in {}", folder.display())
        }
        Some(_) | None => String::new(),
    }
}
