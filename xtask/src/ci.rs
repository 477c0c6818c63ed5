//! `cargo xtask ci`: the tests and every check, the quick ones first.

use crate::output::say;
use crate::project::Project;
use crate::steps::{self, Step};
use crate::tally::Tally;
use crate::{campaigns, checks, confinement, dependencies, documents, hygiene, layers, purity, test};

/// Rounds of the short form; `cargo xtask kill-rounds` does 50.
const KILL_ROUNDS: u32 = 10;

/// Runs the steps whose name contains `only`, up to the first that fails unless told to `keep_going`.
pub(crate) fn run(project: &Project, keep_going: bool, only: Option<&str>) -> Tally {
    let mut steps = plan(project);
    if let Some(only) = only {
        steps.retain(|step| step.name().contains(only));
    }
    if steps.is_empty() {
        say("error: no step has that in its name");
        let mut nothing = Tally::default();
        nothing.on_failure();
        return nothing;
    }
    steps::run(&steps, keep_going)
}

fn plan(project: &Project) -> Vec<Step<'_>> {
    let mut steps = vec![
        Step::check("hygiene", project, hygiene::check),
        Step::check("documents", project, documents::check),
        Step::check("layers of the core", project, layers::check),
        Step::check("arrows between crates", project, dependencies::arrows),
        Step::check("names in their places", project, confinement::check),
        Step::check("licences, bans, compiler version", project, dependencies::policy),
        Step::check("weight of the core", project, dependencies::core_is_light),
        Step::check("purity of the core", project, purity::check),
        Step::check("formatting", project, checks::formatting),
        Step::check("core without features", project, purity::compiles_alone),
        Step::check("clippy", project, checks::clippy),
        Step::check("documentation", project, checks::documentation),
    ];
    steps.extend(test::plan(project, &[]));
    steps.extend([
        Step::check("simulation", project, campaigns::simulation),
        Step::check("release build of the demo", project, campaigns::build_demo),
        Step::check("README's first command", project, campaigns::demo),
        Step::check("README's first command with --load", project, campaigns::demo_with_load),
        Step::tests("kill rounds", |tally| campaigns::kill_rounds(project, KILL_ROUNDS, None, tally)),
    ]);
    steps
}
