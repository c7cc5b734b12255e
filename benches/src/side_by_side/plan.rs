//! What the messages of a scenario are and what they must add up to. A chain begins with one message; each but its last sends the
//! next one and perhaps some that end where they arrive. Every message has a number, and where it goes follows from the number,
//! so the right totals are known before anything runs. The handler is here as well: it is the same for all contenders.

use serde::{Deserialize, Serialize};
use tollgate::Message;

use super::scenario::{Scenario, Skew};

/// A message: adds itself to a partition's account, and goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Which one: there is no other with this number.
    pub number: u64,
    /// How many more there are in its chain.
    pub hops: u64,
    /// Ballast.
    pub body: String,
}

impl Message for Hop {
    const TYPE: &'static str = "bench.hop";
}

/// A partition's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How many messages were handled.
    pub count: u64,
    /// A sum over their numbers, wrapped around, by which a lost message and a doubled one don't make up for each other.
    pub checksum: u64,
    /// Ballast.
    pub ballast: String,
}

/// The messages of a scenario.
pub struct Plan {
    chains: u64,
    chain: u64,
    outputs: u64,
    warm_up: u64,
    body: String,
    ballast: String,
    partitions: u64,
    skew: Skew,
    seed: u64,
    /// For Zipf: the probability that a partition has this number or a lower one.
    cumulated: Vec<f64>,
}

/// Most messages that warm a run up.
const WARM_UP_MAX: u64 = 2_000;

impl Plan {
    /// Plans a scenario.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 partitions")]
    pub fn new(scenario: &Scenario) -> Self {
        let (chain, outputs) =
            if scenario.outputs == 0 { (1, 0) } else { (scenario.chain, scenario.outputs) };
        let of_a_chain = 1 + (chain - 1) * outputs;
        let mut cumulated = Vec::new();
        if let Skew::Zipf(exponent) = scenario.skew {
            let mut sum = 0.0;
            for rank in 1..=scenario.partitions {
                sum += (rank as f64).powf(-exponent);
                cumulated.push(sum);
            }
            for value in &mut cumulated {
                *value /= sum;
            }
        }
        let chains = scenario.messages.div_ceil(of_a_chain);
        Self {
            chains,
            chain,
            outputs,
            warm_up: scenario.partitions.min(WARM_UP_MAX).min(chains),
            body: "b".repeat(scenario.body_bytes),
            ballast: "s".repeat(scenario.state_bytes),
            partitions: scenario.partitions,
            skew: scenario.skew,
            seed: scenario.seed,
            cumulated,
        }
    }

    /// The messages that begin chains, in their order.
    pub fn starts(&self) -> Vec<Hop> {
        (0..self.chains).map(|chain| self.hop(chain * self.chain * self.width(), self.chain - 1)).collect()
    }

    /// Messages that warm a run up: one for each partition, up to a bound. They are audited and not measured.
    pub fn warm_ups(&self) -> Vec<Hop> {
        let first = self.first_warm_up();
        (first..first + self.warm_up).map(|number| self.hop(number, 0)).collect()
    }

    /// How many messages are measured.
    pub const fn measured(&self) -> u64 {
        self.chains * (1 + (self.chain - 1) * self.outputs)
    }

    /// Which partition a message goes to, by its number.
    pub fn partition_of(&self, number: u64) -> u64 {
        let first = self.first_warm_up();
        if number >= first {
            return (number - first) % self.partitions;
        }
        let mut random = fastrand::Rng::with_seed(mix(self.seed ^ number));
        match self.skew {
            Skew::Uniform => random.u64(0..self.partitions),
            Skew::OneHot => 0,
            Skew::Zipf(_) => {
                let at = random.f64();
                let rank = self.cumulated.partition_point(|cumulated| *cumulated < at);
                (rank as u64).min(self.partitions - 1)
            }
        }
    }

    /// The name of the partition that a message goes to.
    pub fn destination(&self, number: u64) -> String {
        name(self.partition_of(number))
    }

    /// The handler: adds a message to an account and says what it sends.
    pub fn handle(&self, account: &mut Account, hop: &Hop) -> Vec<Hop> {
        account.count += 1;
        account.checksum = account.checksum.wrapping_add(mix(hop.number));
        if account.ballast.len() != self.ballast.len() {
            account.ballast.clone_from(&self.ballast);
        }
        if hop.hops == 0 {
            return Vec::new();
        }
        let next = hop.number + self.width();
        (0..self.outputs)
            .map(|place| self.hop(next + place, if place == 0 { hop.hops - 1 } else { 0 }))
            .collect()
    }

    /// What must be in the accounts in the end, by partition: how many messages, and their checksum.
    ///
    /// # Panics
    /// If there are more partitions than memory can count.
    pub fn expected(&self) -> Vec<(u64, u64)> {
        let mut accounts = vec![(0, 0_u64); usize::try_from(self.partitions).expect("it fits into memory")];
        let mut add = |number: u64| {
            let place = usize::try_from(self.partition_of(number)).expect("it fits into memory");
            accounts[place].0 += 1;
            accounts[place].1 = accounts[place].1.wrapping_add(mix(number));
        };
        let width = self.width();
        for chain in 0..self.chains {
            let first = chain * self.chain * width;
            add(first);
            for step in 1..self.chain {
                (0..self.outputs).for_each(|place| add(first + step * width + place));
            }
        }
        let first = self.first_warm_up();
        (first..first + self.warm_up).for_each(add);
        accounts
    }

    fn hop(&self, number: u64, hops: u64) -> Hop {
        Hop { number, hops, body: self.body.clone() }
    }

    /// Numbers for each step of a chain.
    const fn width(&self) -> u64 {
        if self.outputs == 0 { 1 } else { self.outputs }
    }

    const fn first_warm_up(&self) -> u64 {
        self.chains * self.chain * self.width()
    }
}

/// The name of a partition.
pub fn name(partition: u64) -> String {
    format!("partition-{partition:06}")
}

/// Makes a number look random (`SplitMix64`).
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn accounts_after_running(plan: &Plan) -> Vec<(u64, u64)> {
        let mut accounts: HashMap<u64, Account> = HashMap::new();
        let mut waiting = plan.warm_ups();
        waiting.extend(plan.starts());
        while let Some(hop) = waiting.pop() {
            let account = accounts.entry(plan.partition_of(hop.number)).or_default();
            waiting.extend(plan.handle(account, &hop));
        }
        let of = |partition: u64| {
            accounts.get(&partition).map_or((0, 0), |account| (account.count, account.checksum))
        };
        (0..plan.partitions).map(of).collect()
    }

    #[test]
    fn handling_every_message_once_gives_what_is_expected() {
        for skew in [Skew::Uniform, Skew::Zipf(1.0), Skew::OneHot] {
            for outputs in [0, 1, 3] {
                let scenario =
                    Scenario { messages: 500, partitions: 20, skew, outputs, ..Scenario::headline() };
                let plan = Plan::new(&scenario);
                assert_eq!(accounts_after_running(&plan), plan.expected(), "{skew:?}, {outputs} outputs");
                let handled: u64 = plan.expected().iter().map(|(count, _)| count).sum();
                assert_eq!(handled, plan.measured() + plan.warm_ups().len() as u64);
            }
        }
    }

    #[test]
    fn zipf_prefers_the_first_partitions() {
        let scenario = Scenario {
            messages: 10_000,
            partitions: 100,
            skew: Skew::Zipf(1.0),
            outputs: 0,
            ..Scenario::headline()
        };
        let plan = Plan::new(&scenario);
        let first = (0..10_000).filter(|number| plan.partition_of(*number) == 0).count();
        assert!((1_700..2_200).contains(&first), "a fifth goes to the first of 100: {first}");
    }
}
