//! The order in which score stages score a candidate.

use super::{AttemptLoop, Branch};
use crate::filter::ScoreSelection;

impl AttemptLoop {
    /// Returns the score stages of a branch in the order of their cost, each after the stages whose scores it may read; in the order of the
    /// file if all scores are computed.
    pub(super) fn order(&self, branch: &Branch) -> Vec<usize> {
        if branch.test.selection() == ScoreSelection::All {
            return branch.scorers.clone();
        }
        let mut remaining = branch.scorers.clone();
        let mut order = Vec::with_capacity(remaining.len());
        while !remaining.is_empty() {
            let is_ready = |index: usize| self.scorers[index].after.iter().all(|other| !remaining.contains(other));
            let ready = remaining.iter().copied().enumerate().filter(|(_, index)| is_ready(*index));
            let cost = |index: usize| self.scorers[index].stage.cost();
            let next = ready.min_by(|a, b| cost(a.1).total_cmp(&cost(b.1)).then(a.1.cmp(&b.1)));
            // Stages follow the stages that they read, so that the first one is always ready.
            let at = next.map_or(0, |(at, _)| at);
            order.push(remaining.remove(at));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::attempt::{AttemptOutcomes, Observer, Outcome, ScoreNode};
    use crate::error::Fault;
    use crate::filter::{QualityTest, QualityTestConfig};
    use crate::mask::{MaskedScan, Organ};
    use crate::random::Key;
    use crate::score::{Score, ScoreStage, Scorer, Scores};
    use crate::synth::organ::testing::{liver, masked};
    use crate::synth::{Candidate, Rules, RulesConfig};
    use crate::volume::{Array3, HuWindow};

    /// A stage of a constant score and a cost, which counts its candidates.
    struct Constant(Score, f64, f64, AtomicUsize);

    impl ScoreStage for Constant {
        fn scores(&self) -> &[Score] {
            std::slice::from_ref(&self.0)
        }

        fn cost(&self) -> f64 {
            self.2
        }

        fn baseline<'a>(&'a self, _: &'a MaskedScan, _: &'a Organ) -> Result<Box<dyn Scorer + 'a>, Fault> {
            Ok(Box::new(self))
        }
    }

    impl Scorer for &Constant {
        fn score(&self, _: &Candidate, scores: &mut Scores) -> Result<(), Fault> {
            self.3.fetch_add(1, Ordering::Relaxed);
            scores.set(self.0, self.1);
            Ok(())
        }
    }

    /// Keeps the outcomes of the only branch.
    struct Outcomes(Vec<(Scores, Outcome)>);

    impl Observer for Outcomes {
        type Stop = Fault;

        fn on_attempt(&mut self, attempt: AttemptOutcomes) -> Result<(), Fault> {
            self.0.extend(attempt.outcomes.into_iter().map(|own| (own.scores, own.outcome)));
            Ok(())
        }
    }

    fn attempts(stages: &[Arc<Constant>], after: &[Vec<usize>], selection: &str) -> AttemptLoop {
        let settings =
            format!("attempts = 1\naccept = ['realness > 0.5', 'dice > 0.5', 'cnr < 0']\nscores = '{selection}'");
        let config: QualityTestConfig = toml::from_str(&settings).unwrap();
        let rules = Rules::new(RulesConfig::default(), &[liver()], HuWindow::ABDOMEN).unwrap();
        let none = AttemptLoop::new(Arc::new(rules), Vec::new(), QualityTest::new(config).unwrap());
        let node = |(index, stage): (usize, &Arc<Constant>)| ScoreNode {
            name: format!("{index}"),
            stage: stage.clone(),
            after: after[index].clone(),
        };
        let scorers: Vec<ScoreNode> = stages.iter().enumerate().map(node).collect();
        let branches =
            none.branches.iter().map(|branch| Branch { scorers: (0..stages.len()).collect(), ..branch.clone() });
        AttemptLoop { branches: branches.collect(), scorers, ..none.clone() }
    }

    #[test]
    fn cheap_conditions_are_checked_before_costly_scores() {
        let scan =
            masked([1.0; 3], Array3::filled([60, 60, 60], 1), |[x, y, z]| 100.0 + f64::from((x * y + z) as u32 % 9));
        let run = |values: [f64; 3], selection: &str| {
            let scores = [Score::Realness, Score::Dice, Score::Cnr];
            let costs = [900.0, 300.0, 1.0];
            let stages: Vec<Arc<Constant>> =
                (0..3).map(|k| Arc::new(Constant(scores[k], values[k], costs[k], AtomicUsize::new(0)))).collect();
            let stages_loop = attempts(&stages, &[vec![], vec![], vec![]], selection);
            let (organ, mut outcomes) = (liver(), Outcomes(Vec::new()));
            let mut prepared = stages_loop.prepare(&scan, &organ, &mut outcomes).unwrap();
            (0..4).for_each(|number| prepared.attempt_tumor(Key::root(number), &mut outcomes).unwrap());
            let candidates = outcomes.0.iter().filter(|(scores, _)| *scores != Scores::default()).count();
            assert!(candidates > 0);
            let calls = [0, 1, 2].map(|k| stages[k].3.load(Ordering::Relaxed) / candidates);
            (calls, outcomes.0.into_iter().find(|(scores, _)| *scores != Scores::default()).unwrap().1)
        };
        let reason = |text: &str| Outcome::Rejected { reason: text.to_owned() };
        assert_eq!(run([0.1, 0.1, 1.0], "all"), ([1, 1, 1], reason("realness > 0.5")));
        assert_eq!(run([0.1, 0.1, 1.0], "until-rejected"), ([0, 0, 1], reason("cnr < 0")));
        assert_eq!(run([0.1, 0.1, -1.0], "until-rejected"), ([0, 1, 1], reason("dice > 0.5")));
        assert_eq!(run([0.1, 0.9, -1.0], "until-rejected"), ([1, 1, 1], reason("realness > 0.5")));
        assert_eq!(run([0.9, 0.9, -1.0], "until-rejected"), ([1, 1, 1], Outcome::Accepted));
    }

    #[test]
    fn stages_follow_the_stages_whose_scores_they_read() {
        let stage = |score, cost| Arc::new(Constant(score, 0.0, cost, AtomicUsize::new(0)));
        let stages = [stage(Score::Realness, 900.0), stage(Score::Dice, 300.0), stage(Score::Cnr, 1.0)];
        let order = |after: &[Vec<usize>]| {
            let stages = attempts(&stages, after, "until-rejected");
            stages.order(&stages.branches[0])
        };
        assert_eq!(order(&[vec![], vec![], vec![]]), [2, 1, 0]);
        assert_eq!(order(&[vec![], vec![], vec![1]]), [1, 2, 0]);
        assert_eq!(order(&[vec![], vec![0], vec![0, 1]]), [0, 1, 2]);
    }
}
