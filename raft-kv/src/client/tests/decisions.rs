//! Changes to the cluster itself: made once, and never called undone when they may have been made.

use super::*;

fn removal() -> Vec<Change> {
    vec![Change::Remove { node: node(3) }]
}

#[tokio::test(start_paused = true)]
async fn a_change_finds_the_leader_and_waits_for_one_that_is_busy() {
    let cluster = Cluster::new(Some(2));
    cluster.fates(&[Fate::Busy, Fate::NotSent]);
    let reply = cluster.client().change_membership(None, removal()).await.map_err(|error| error.to_string());
    assert_eq!(reply, Ok(MembershipReply { configuration: Index::new(1), node: None }));
}

#[tokio::test(start_paused = true)]
async fn regress_a_change_whose_answer_was_lost_is_unknown_and_not_impossible() {
    for fate in [Fate::LoseAnswer, Fate::Silence, Fate::DeposeCommitted] {
        let cluster = Cluster::new(Some(1));
        cluster.fates(&[fate]);
        let changed = cluster.client().change_membership(None, removal()).await;
        let error = changed.expect_err("because the second attempt finds nobody to remove");
        let cause = Refusal::Declined { reason: "n3 is not a member".to_owned() };
        assert!(
            matches!(&error, ClientError::OutcomeUnknown { cause: UnknownCause::RetryRefused(found), .. } if *found == cause),
            "{fate:?}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains("the change may or may not have been made"), "{text}");
        assert!(text.ends_with("`raft-kv member list` shows whether it was made, and who leads"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_done_is_told_so() {
    let cluster = Cluster::new(Some(1));
    cluster.world().members.clear();
    for fate in [Fate::Deliver, Fate::NotSent, Fate::Busy] {
        cluster.fates(&[fate]);
        let changed = cluster.client().change_membership(None, removal()).await;
        let error = changed.expect_err("because there is nobody");
        assert!(matches!(error, ClientError::Declined { .. }), "{fate:?}: {error}");
    }
    let nobody = Cluster::new(None);
    let error = nobody.client().transfer(None).await.expect_err("because nobody leads");
    let text = error.to_string();
    assert!(matches!(error, ClientError::Unavailable(_)), "{text}");
    assert!(text.starts_with("no leader could do that within 5s; nothing was changed"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn regress_a_change_without_an_answer_is_not_called_undone_when_the_time_is_up() {
    let cluster = Cluster::new(Some(1));
    cluster.fates(&[Fate::Silence]);
    let client = cluster.client();
    let depose = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut world = cluster.world();
        (world.leader, world.hint) = (None, None);
    };
    let (result, ()) = tokio::join!(client.change_membership(None, removal()), depose);
    let error = result.expect_err("because there is no leader any more");
    assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::OutOfTime, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_tells_who_leads() {
    let cluster = Cluster::new(Some(1));
    assert_eq!(cluster.client().transfer(None).await.map_err(|error| error.to_string()), Ok(Some(node(2))));
}
