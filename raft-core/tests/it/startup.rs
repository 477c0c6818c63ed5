//! What storage may have found, and what no correct server leaves behind (contract D10).

use raft_core::{Config, ConfigError, Durable, DurableError, Limits, Raft, SnapshotMeta, TermRun, Timing};

use crate::rig::{Start, at, index, term};

fn refused(change: impl FnOnce(&mut Durable)) -> Option<DurableError> {
    let mut durable = Start::first_of_three().log(&[1, 1, 2]).durable();
    change(&mut durable);
    let config = Config::new(Timing::LAN, Limits::DEFAULT, 1).expect("both are presets");
    match Raft::new(config, durable) {
        Ok(_) => None,
        Err(ConfigError::Durable(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn rule_d10_a_log_without_its_beginning_is_refused() {
    for base in [at(1, 1), at(1, 0), at(2, 1)] {
        let error = refused(|durable| durable.base = base);
        assert_eq!(error, Some(DurableError::Compacted { base, snapshot: at(0, 0) }));
        let said = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(&base.to_string()), "{said}");
    }
}

#[test]
fn rule_d10_a_term_or_an_index_that_no_cluster_reaches_is_refused() {
    let most = 1 << 62;
    assert_eq!(refused(|durable| durable.hard_state.term = term(most)), None, "far, but there is room to count on");
    let beyond = term(most + 1);
    assert_eq!(
        refused(|durable| durable.hard_state.term = beyond),
        Some(DurableError::Absurd { term: beyond, last: index(3) })
    );
    assert_eq!(
        refused(|durable| (durable.last, durable.tail) = (index(most + 1), raft_core::Entries::EMPTY)),
        Some(DurableError::Absurd { term: term(2), last: index(most + 1) })
    );
    assert_eq!(
        refused(|durable| (durable.last, durable.tail) = (index(most), raft_core::Entries::EMPTY)),
        None,
        "of one long term"
    );
}

/// The name of a configuration is the index of its entry, also when a snapshot covers that entry
/// and the server is started again: changes are compared by it, on whichever server.
#[test]
fn regress_m2_a_configuration_keeps_its_name_when_its_entry_is_compacted() {
    let mut durable = Start::first_of_three().log(&[1, 1, 1, 1]).durable();
    let configuration = crate::rig::configuration(2, &crate::rig::membership(&[1, 2, 3]));
    durable.base = at(3, 1);
    durable.snapshot = Some(SnapshotMeta { last: at(3, 1), configuration: configuration.clone(), bytes: 9 });
    durable.configuration = configuration.clone();
    (durable.applied, durable.runs) = (index(3), vec![TermRun { first: index(4), term: term(1) }]);
    durable.tail = crate::rig::entries_of(4, &[1]);
    let raft = Start::first_of_three().raft_with(durable);
    assert_eq!(raft.status().configuration, configuration);
}
