//! Carries the bytes of one connection in one direction, as the rules of its link say.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{Link, Loss};
use crate::dice::Dice;

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks under way; more stay in the sender's socket.
const CHUNKS_MAX: usize = 64;

/// Bytes, and when they may arrive. No bytes: the sender has closed its direction.
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

/// Carries everything from `from` to `to` until `from` closes.
///
/// # Errors
/// When either end fails, or the link's loss resets the connection.
pub(super) async fn carry<R, W>(from: R, to: W, link: &Link, dice: Dice) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(take(from, sender, link, dice), deliver(to, receiver, link)).map(drop)
}

async fn take<R>(mut from: R, sender: mpsc::Sender<Chunk>, link: &Link, mut dice: Dice) -> io::Result<()>
where
    R: AsyncRead + Unpin,
{
    let mut last = Instant::now();
    loop {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        from.read_buf(&mut bytes).await?;
        let rules = link.rules();
        let jitter = u64::try_from(rules.jitter.as_micros()).unwrap_or(u64::MAX);
        let mut delay = rules.delay + Duration::from_micros(dice.within(0..jitter));
        if dice.within(0..1_000) < rules.loss.reset_per_mille {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        if dice.chance(rules.loss.stall_percent) {
            link.count_stall();
            delay += Loss::STALL;
        }
        // What is behind a late chunk is late as well.
        last = last.max(Instant::now() + delay);
        let is_end = bytes.is_empty();
        if sender.send(Chunk { due: last, bytes }).await.is_err() || is_end {
            return Ok(());
        }
    }
}

async fn deliver<W>(mut to: W, mut receiver: mpsc::Receiver<Chunk>, link: &Link) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    while let Some(chunk) = receiver.recv().await {
        if chunk.due > Instant::now() {
            sleep_until(chunk.due).await;
        }
        link.passable().await;
        if chunk.bytes.is_empty() {
            return to.shutdown().await;
        }
        if let Some(rate) = link.rules().bytes_per_second.filter(|rate| *rate > 0) {
            let micros =
                u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX).saturating_mul(1_000_000) / rate;
            sleep(Duration::from_micros(micros)).await;
        }
        to.write_all(&chunk.bytes).await?;
        link.count_bytes(chunk.bytes.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{DuplexStream, duplex};
    use tokio::time::timeout;

    use super::super::link::Rules;
    use super::*;

    /// Ends of a connection that is carried over a link with `rules`, in time that stands still.
    fn carried(
        rules: Rules,
    ) -> (DuplexStream, DuplexStream, Arc<Link>, tokio::task::JoinHandle<io::Result<()>>) {
        let (near, from) = duplex(1 << 20);
        let (to, far) = duplex(1 << 20);
        let link = Arc::new(Link::default());
        link.change(|now| *now = rules);
        let inner = link.clone();
        let task = tokio::spawn(async move { carry(from, to, &inner, Dice::new(1)).await });
        (near, far, link, task)
    }

    async fn arrives(far: &mut DuplexStream, within: Duration) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 64];
        let count = timeout(within, far.read(&mut bytes)).await.ok()?.unwrap();
        bytes.truncate(count);
        Some(bytes)
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_arrives_and_the_end_after_it() {
        let (mut near, mut far, link, task) = carried(Rules::default());
        near.write_all(b"hello").await.unwrap();
        assert_eq!(arrives(&mut far, HOUR).await.unwrap(), b"hello");
        drop(near);
        assert_eq!(arrives(&mut far, HOUR).await.unwrap(), b"");
        task.await.unwrap().unwrap();
        assert_eq!(link.traffic().bytes, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_link_holds_bytes_and_lets_them_go_when_healed() {
        let (mut near, mut far, link, _task) = carried(Rules { blocks: 1, ..Rules::default() });
        near.write_all(b"hello").await.unwrap();
        assert_eq!(arrives(&mut far, HOUR).await, None);
        assert_eq!(link.traffic().held, 1);
        link.change(|rules| rules.blocks = 0);
        assert_eq!(arrives(&mut far, HOUR).await.unwrap(), b"hello");
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_link_hides_that_the_sender_closed() {
        let (near, mut far, link, _task) = carried(Rules { blocks: 1, ..Rules::default() });
        drop(near);
        assert_eq!(arrives(&mut far, HOUR).await, None);
        link.change(|rules| rules.blocks = 0);
        assert_eq!(arrives(&mut far, HOUR).await.unwrap(), b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_makes_everything_late_and_keeps_the_order() {
        let delay = Duration::from_millis(300);
        let rules = Rules { delay, jitter: Duration::from_millis(200), ..Rules::default() };
        let (mut near, mut far, _link, _task) = carried(rules);
        let mut got = Vec::new();
        for byte in 0..20_u8 {
            near.write_all(&[byte]).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(arrives(&mut far, Duration::from_millis(200)).await, None);
        while got.len() < 20 {
            got.extend(arrives(&mut far, HOUR).await.unwrap());
        }
        assert_eq!(got, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_narrow_link_takes_its_time() {
        let start = Instant::now();
        let rules = Rules { bytes_per_second: Some(1_000), ..Rules::default() };
        let (mut near, mut far, _link, _task) = carried(rules);
        near.write_all(&[0; 64]).await.unwrap();
        arrives(&mut far, HOUR).await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 64);
    }

    #[tokio::test(start_paused = true)]
    async fn loss_stalls_or_resets() {
        let start = Instant::now();
        let loss = Loss { stall_percent: 100, reset_per_mille: 0 };
        let (mut near, mut far, link, _task) = carried(Rules { loss, ..Rules::default() });
        near.write_all(b"x").await.unwrap();
        arrives(&mut far, HOUR).await.unwrap();
        assert_eq!((start.elapsed(), link.traffic().stalls), (Loss::STALL, 1));

        let loss = Loss { stall_percent: 0, reset_per_mille: 1_000 };
        let (mut near, _far, _link, task) = carried(Rules { loss, ..Rules::default() });
        near.write_all(b"x").await.unwrap();
        assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
