//! One round: start, check what was before, let clients work, disturb, kill, verify.

use super::house::House;
use super::load::{Clients, Dice};
use super::{Done, Found};
use std::time::Duration;
use tokio::time::sleep;

/// One round in so many comes to rest before anybody works.
const REST_ONE_IN: u64 = 10;
/// One round in so many is paused before the kill.
const PAUSE_ONE_IN: u64 = 4;
/// One round in so many sees a second daemon on the same directory.
const SECOND_ONE_IN: u64 = 10;
/// One round in so many kills the sled too.
const SLED_ONE_IN: u64 = 3;

/// Plays a round.
pub async fn play(
    house: &mut House,
    clients: &mut Clients,
    dice: &mut Dice,
    done: &mut Done,
) -> Result<(), Found> {
    house.start().await?;
    let (http, url) = (house.http.clone(), house.url());
    done.settled += clients.check(&http, &url).await?;
    if done.kills.is_multiple_of(REST_ONE_IN) {
        clients.come_to_rest(&http, &url).await?;
    }
    let work_ms = 40 + dice.roll(260);
    let pause = dice.roll(PAUSE_ONE_IN) == 0;
    let (pause_ms, is_sled_killed) = (50 + dice.roll(600), dice.roll(SLED_ONE_IN) == 0);
    let with_second = dice.roll(SECOND_ONE_IN) == 0;
    let disturb = async {
        sleep(Duration::from_millis(work_ms)).await;
        let disturbed = async {
            if with_second {
                house.second_is_refused().await?;
                done.refused_seconds += 1;
            }
            if pause {
                house.pause(Duration::from_millis(pause_ms)).await?;
                done.pauses += 1;
                sleep(Duration::from_millis(pause_ms / 4)).await;
            }
            Ok(())
        };
        let disturbed = disturbed.await;
        if is_sled_killed {
            house.kill_sled().await;
            done.sled_kills += 1;
        }
        // Whatever came before, the clients work until it is gone.
        house.kill_daemon().await;
        disturbed
    };
    clients.work(&http, &url, disturb).await?;
    done.kills += 1;
    done.acknowledged = clients.acknowledged();
    house.verify().await?;
    done.verified += 1;
    Ok(())
}

/// After the last kill: one more start, and everything comes to rest.
pub async fn last(house: &mut House, clients: &mut Clients, done: &mut Done) -> Result<(), Found> {
    house.start().await?;
    let (http, url) = (house.http.clone(), house.url());
    done.settled += clients.check(&http, &url).await?;
    done.acknowledged = clients.acknowledged();
    clients.come_to_rest(&http, &url).await
}
