//! The least that a consumer can do: what a broker and this library allow on this machine.

use amiquip::{Connection, ConsumerMessage, ConsumerOptions};

use crate::{ACK_BATCH, PREFETCH};

/// Takes that many messages and acknowledges them. Anything else that happens ends the process with an error.
pub fn consume(url: &str, queue: &str, messages: usize) {
    let mut connection = Connection::insecure_open(url).expect("the broker takes the connection");
    let channel = connection.open_channel(None).expect("a channel opens");
    channel.qos(0, PREFETCH, false).expect("the prefetch is set");
    let consumer = channel.basic_consume(queue, ConsumerOptions::default()).expect("the queue is there");
    for n in 1..=messages {
        let ConsumerMessage::Delivery(delivery) = consumer.receiver().recv().expect("the connection lasts") else {
            panic!("the broker ended it at message {n}");
        };
        if n % ACK_BATCH == 0 || n == messages {
            consumer.ack_multiple(delivery).expect("an ack is sent");
        }
    }
    // Waits for the broker, so that every ack has arrived.
    drop(consumer);
    connection.close().expect("the connection closes in good order");
}
