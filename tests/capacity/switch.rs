//! An address in front of several servers, as a load balancer or a floating address is one: it leads to one of them at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Switch {
    port: u16,
    to: Arc<AtomicU16>,
    turned: watch::Sender<u64>,
}

impl Switch {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let switch = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(AtomicU16::new(port)),
            turned: watch::Sender::new(0),
        };
        let (to, turned) = (Arc::clone(&switch.to), switch.turned.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut turned, to) = (turned.subscribe(), to.load(Ordering::SeqCst));
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = turned.changed() => {} // both are closed
                    }
                });
            }
        });
        switch
    }

    /// The URL of what stands behind it, from that of one of the servers.
    pub(crate) fn url(&self, url: &str, server: u16) -> String {
        url.replace(&format!(":{server}/"), &format!(":{}/", self.port))
    }

    /// Leads to another server from now on, and closes what led to the one before.
    pub(crate) fn turn(&self, to: u16) {
        self.to.store(to, Ordering::SeqCst);
        self.turned.send_modify(|turns| *turns += 1);
    }
}
