//! Panics of actors: the actor library catches them, and the roster restarts who panicked, so that a run would
//! go on as if nothing had been wrong. This remembers them, per thread, and a run that had one has failed.
//!
//! Panics that a scenario asks for are resumed without the hook, and are not seen here.

use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// From here on panics of this thread are remembered, and not printed.
pub(super) fn listen() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_LISTENING.get() {
                FIRST.with_borrow_mut(|first| first.get_or_insert_with(|| info.to_string()).truncate(2_000));
            } else {
                before(info);
            }
        }));
    });
    IS_LISTENING.set(true);
    FIRST.set(None);
}

/// The first panic since then; from here on they are printed again.
pub(super) fn heard() -> Option<String> {
    IS_LISTENING.set(false);
    FIRST.take()
}

/// The first panic so far.
pub(super) fn peek() -> Option<String> {
    FIRST.with_borrow(Clone::clone)
}

/// A panic that the scenario wants.
pub(super) fn wanted() -> ! {
    panic::resume_unwind(Box::new("the scenario wants this actor to panic"))
}
