//! Receipts that are good for one life of the host. A broker in memory numbers its deliveries anew when its process is
//! started again; a consumer that outlives the host still holds receipts of the life before, and the new broker would
//! take them for its own and end messages that nobody has processed. So the server writes its life onto each receipt that
//! leaves, and lets none in that bears another.

use tollgate::Broker;
use tollgate::proto::{BrokerError, Delivery, EndpointName, Receipt, Settlement};

/// One life of a host: drawn at random when it begins to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(u64);

/// What stands between the life and a receipt that is a number.
const NUMBER: char = '#';

/// What stands between the life and a receipt that is a text.
const TEXT: char = ':';

impl Life {
    /// Begins one.
    pub fn begin() -> Self {
        Self(fastrand::u64(..))
    }

    /// Writes the life onto a delivery's receipt.
    pub fn stamp(self, delivery: Delivery) -> Delivery {
        let stamped = match &delivery.receipt {
            Receipt::Number(number) => format!("{:016x}{NUMBER}{number}", self.0),
            Receipt::Text(text) => format!("{:016x}{TEXT}{text}", self.0),
        };
        Delivery { receipt: Receipt::Text(stamped.into()), ..delivery }
    }

    /// The broker's own receipt. `None`: it is of another life, or was never stamped.
    fn own(self, receipt: &Receipt) -> Option<Receipt> {
        let Receipt::Text(text) = receipt else { return None };
        let place = text.find([NUMBER, TEXT])?;
        let (life, receipt) = text.split_at(place);
        if u64::from_str_radix(life, 16) != Ok(self.0) {
            return None;
        }
        match receipt.strip_prefix(NUMBER) {
            Some(number) => number.parse().ok().map(Receipt::Number),
            None => receipt.strip_prefix(TEXT).map(|text| Receipt::Text(text.into())),
        }
    }

    /// Settles what was delivered in this life; the rest comes again by itself.
    pub async fn settle(
        self,
        broker: &dyn Broker,
        endpoint: &EndpointName,
        settlements: Vec<Settlement>,
    ) -> Vec<Result<(), BrokerError>> {
        let mut is_own = Vec::with_capacity(settlements.len());
        let mut own = Vec::with_capacity(settlements.len());
        for Settlement { receipt, verdict } in settlements {
            let receipt = self.own(&receipt);
            is_own.push(receipt.is_some());
            own.extend(receipt.map(|receipt| Settlement { receipt, verdict }));
        }
        let mut answers = broker.settle(endpoint, own).await.into_iter();
        let failed = |reason: &str| {
            Err(BrokerError::Unavailable { endpoint: endpoint.clone(), reason: reason.to_owned() })
        };
        let answer = |is_own| {
            if is_own {
                answers.next().unwrap_or_else(|| failed("the broker gave too few answers"))
            } else {
                failed("the delivery was made before the host was started again")
            }
        };
        is_own.into_iter().map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_receipt_is_understood_in_its_own_life_and_in_no_other() {
        let (life, next) = (Life(7), Life(8));
        for receipt in [Receipt::Number(u64::MAX), Receipt::Text("a#b:c".into()), Receipt::Text("".into())] {
            let delivery = Delivery { envelope: Bytes::new(), receipt: receipt.clone(), delivery_count: 1 };
            let stamped = life.stamp(delivery).receipt;
            assert_eq!(life.own(&stamped), Some(receipt.clone()));
            assert_eq!(next.own(&stamped), None);
            assert_eq!(life.own(&receipt), None);
        }
    }
}
