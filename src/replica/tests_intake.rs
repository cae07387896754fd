//! A store that fails, and one with little room.

use super::*;

/// Changes rows in memory only: what is committed of it is another's business.
fn change(replica: &Replica, command: impl FnOnce(&mut Draft) -> Result<(), Fault>) -> Result<Ticket, Fault> {
    let (_, commit) = replica.update(REGION, 0, command, None::<fn(Delta, bool)>)?;
    Ok(commit.unwrap().ticket)
}

fn no_writes<T>(result: Result<T, Fault>) -> bool {
    matches!(result, Err(Fault::NoWrites(_)))
}

#[test]
fn what_a_failed_commit_left_in_memory_is_shown_to_nobody() {
    let (store, replica) = new(1);
    set(&replica, "old", "stored");
    set(&replica, "gone", "stored");
    store.fail_writes("no space left");
    change(&replica, |draft| write(draft, "old", "lost")).unwrap();
    change(&replica, |draft| write(draft, "new", "lost")).unwrap();
    change(&replica, |draft| draft.remove(b"gone").map(drop)).unwrap();
    assert_eq!(text(&replica, "old").as_deref(), Some("lost"), "it is on its way");
    replica.committer.commit_pending();
    assert_eq!(text(&replica, "old").as_deref(), Some("stored"));
    assert_eq!(text(&replica, "gone").as_deref(), Some("stored"));
    assert_eq!(text(&replica, "new"), None);
    let (keys, _) = replica.scan(REGION, 0, 10, 0, None).unwrap();
    assert_eq!(keys.len(), 2);
    assert!(no_writes(change(&replica, |draft| write(draft, "late", "x"))));
    assert!(no_writes(replica.snapshot(REGION)) && no_writes(replica.answer(REGION, &row("old"), &[])));
    assert!(no_writes(replica.apply(&Delta::new(REGION), 0, false)) && no_writes(replica.checkpoint()));
    store.heal();
    assert!(no_writes(change(&replica, |draft| write(draft, "late", "x"))), "only opening it again ends it");
    let next = open(&store, 2);
    assert_eq!((text(&next, "old").as_deref(), text(&next, "new")), (Some("stored"), None));
    assert_eq!(next.actor(), replica.actor());
    assert!(!next.is_amnesiac(), "nothing that was acknowledged is gone");
}

#[test]
fn a_region_whose_clear_never_reached_the_store_is_not_read() {
    let (store, replica) = new(1);
    set(&replica, "k", "v");
    store.fail_writes("no space left");
    replica.clear(REGION, drop).unwrap();
    assert_eq!(text(&replica, "k"), None, "it is on its way");
    replica.committer.commit_pending();
    assert!(no_writes(replica.view(REGION, 0, |view| view.text(b"k"))));
    assert!(no_writes(replica.cell(REGION, &row("k"))) && no_writes(replica.scan(REGION, 0, 10, 0, None)));
    store.heal();
    assert_eq!(text(&open(&store, 2), "k").as_deref(), Some("v"));
}

#[test]
fn with_little_room_peers_and_deletions_go_on_and_with_less_nothing_does() {
    let (_, peer) = new(9);
    let delta = set(&peer, "theirs", "x");
    let (_, replica) = new(1);
    set(&replica, "k", "v");
    set(&replica, "other", "v");
    replica.set_intake(Intake::Leaving, "little room");
    assert!(no_writes(replica.check_healthy()), "others are to take over");
    set(&replica, "k", "w");
    replica.set_intake(Intake::Removals, "little room");
    assert_eq!(change(&replica, |draft| write(draft, "k", "x")), Err(Fault::NoWrites("little room".into())));
    assert_eq!(text(&replica, "k").as_deref(), Some("w"), "what is refused leaves no trace");
    let mixed = change(&replica, |draft| draft.remove(b"other").and_then(|_| write(draft, "k", "x")));
    assert!(no_writes(mixed) && text(&replica, "other").is_some());
    change(&replica, |draft| draft.remove(b"k").map(drop)).unwrap();
    apply(&replica, &delta);
    assert_eq!((text(&replica, "k"), text(&replica, "theirs").as_deref()), (None, Some("x")));
    replica.set_intake(Intake::Nothing, "no room");
    assert!(no_writes(change(&replica, |draft| draft.remove(b"other").map(drop))));
    assert!(no_writes(replica.apply(&delta, 0, false)) && no_writes(replica.clear(REGION, drop)));
    assert!(replica.check_sound().is_ok() && replica.snapshot(REGION).is_ok(), "what is stored is told");
    replica.set_intake(Intake::All, "");
    set(&replica, "k", "again");
}
