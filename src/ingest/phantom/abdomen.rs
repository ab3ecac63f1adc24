//! The abdomen: liver, spleen, pancreas, kidneys, stomach, bowel and their vessels.

use super::anatomy::Anatomy;
use super::scene::{Paint, tissue};
use super::shape::{Point, Shape};
use super::vessels::{BranchingRule, grow_tree};
use crate::random::RandomStream;

const SPLEEN: u8 = 1;
const KIDNEY_RIGHT: u8 = 2;
const KIDNEY_LEFT: u8 = 3;
const GALLBLADDER: u8 = 4;
const LIVER: u8 = 5;
const STOMACH: u8 = 6;
const PANCREAS: u8 = 7;

impl Anatomy<'_> {
    /// Adds the organs; later organs overwrite earlier ones.
    pub(super) fn organs(&mut self) {
        self.great_vessels();
        let kidneys = [1.0, -1.0].map(|side| self.kidney(side));
        self.adrenals();
        let stomach = self.stomach();
        self.spleen(&stomach, &kidneys[0]);
        self.liver(&stomach, &kidneys[1]);
        self.pancreas();
    }

    fn great_vessels(&mut self) {
        let hu = self.hu;
        let aorta = [([7.0, 34.0, -60.0], 10.5), ([4.0, 30.0, -130.0], 9.5), ([3.0, 26.0, -196.0], 8.5)];
        self.scene.add(Shape::chain(&aorta), tissue(hu.artery).label(52));
        for (side, artery, vein) in [(1.0, 65, 67), (-1.0, 66, 68)] {
            let iliac =
                [([3.0, 26.0, -194.0], 6.5), ([side * 26.0, 34.0, -240.0], 5.5), ([side * 48.0, 40.0, -300.0], 5.0)];
            self.scene.add(Shape::chain(&iliac), tissue(hu.artery).label(artery));
            let vena = [
                ([-18.0, 28.0, -198.0], 8.0),
                ([side * 22.0 - 6.0, 42.0, -244.0], 6.5),
                ([side * 44.0, 48.0, -300.0], 6.0),
            ];
            self.scene.add(Shape::chain(&vena), tissue(hu.vein).label(vein));
            let renal = [([3.0, 31.0, -122.0], 3.0), ([side * 48.0, 46.0, -126.0], 2.6)];
            self.scene.add(Shape::chain(&renal), tissue(hu.artery));
            let renal_vein = [([-20.0, 24.0, -126.0], 5.0), ([side * 46.0, 40.0, -128.0], 4.0)];
            self.scene.add(Shape::chain(&renal_vein), tissue(hu.vein));
        }
        let cava = [
            ([-22.0, 14.0, 34.0], 11.0),
            ([-24.0, 20.0, -20.0], 11.0),
            ([-22.0, 26.0, -120.0], 10.5),
            ([-18.0, 28.0, -198.0], 9.5),
        ];
        self.scene.add(Shape::chain(&cava), tissue(hu.vein).label(63));
        let mesenteric = [([4.0, 22.0, -108.0], 3.4), ([2.0, 2.0, -140.0], 3.2), ([-4.0, -16.0, -200.0], 2.4)];
        self.scene.add(Shape::chain(&mesenteric), tissue(hu.artery));
        let celiac = [([5.0, 24.0, -92.0], 3.6), ([2.0, 8.0, -88.0], 3.2), ([-28.0, -2.0, -88.0], 2.4)];
        self.scene.add(Shape::chain(&celiac), tissue(hu.artery));
    }

    /// Adds one kidney and returns its outline, which other organs must not enter.
    fn kidney(&mut self, side: f32) -> Shape {
        let (label, height) = if side > 0.0 { (KIDNEY_LEFT, -112.0) } else { (KIDNEY_RIGHT, -134.0) };
        let size = self.vary(0.06);
        let shift = self.shift(3.0);
        let center: Point = [side * 59.0 + shift[0], 52.0 + 0.5 * shift[1], height + 2.0 * shift[2]];
        let tilt = [0.12, side * 0.2, side * 0.5];
        let at = |medial: f32, rise: f32| [center[0] - side * medial, center[1] - 0.45 * medial, center[2] + rise];
        let outline = Shape::rotated(center, [31.0 * size, 25.0 * size, 55.0 * size], tilt);
        let hilum = Shape::rotated(at(24.0, 0.0), [14.0, 10.0, 20.0], tilt);
        let cortex = outline.clone().clipped(vec![], vec![hilum.clone()]);
        self.scene.add(cortex, tissue(self.hu.cortex).variation(5.0).roughness(1.2).label(label));
        for (rise, medial) in [(-30.0, 5.0), (-18.0, -5.0), (-5.0, -8.0), (8.0, -8.0), (20.0, -4.0), (31.0, 5.0)] {
            let pyramid = Shape::rotated(at(medial, rise * size), [7.0, 8.0, 5.5], tilt);
            self.scene.add(pyramid, tissue(self.hu.medulla).within_labels(label, label));
        }
        let sinus =
            Shape::union(vec![Shape::rotated(at(14.0, 0.0), [10.0, 8.0, 23.0].map(|r| r * size), tilt), hilum], 6.0);
        self.scene.add(sinus, tissue(-75.0).variation(20.0).roughness(2.0).within_labels(label, label).label(0));
        self.scene.add(Shape::rotated(at(15.0, 0.0), [7.0, 4.0, 10.0], tilt), tissue(12.0));
        outline
    }

    fn adrenals(&mut self) {
        for (side, label, z) in [(1.0, 9, -72.0), (-1.0, 8, -74.0)] {
            let top: Point = [side * 38.0, 30.0, z];
            for (x, y) in [(side * 9.0, 14.0), (side * -3.0, 16.0)] {
                let limb = [(top, 2.6), ([top[0] + x, top[1] + y, z - 12.0], 2.2)];
                self.scene.add(Shape::chain(&limb), tissue(0.5 * (self.hu.pancreas + 40.0)).label(label));
            }
        }
    }

    /// Adds the stomach with its fluid and air, and returns its outline.
    fn stomach(&mut self) -> Shape {
        let filling = self.vary(0.12);
        let content = self.random.uniform(8.0, 38.0) as f32;
        let level = self.random.uniform(-50.0, -22.0) as f32;
        let parts = vec![
            Shape::ellipsoid([66.0, 14.0, -38.0], [34.0 * filling, 34.0 * filling, 34.0]),
            Shape::rotated([58.0, -26.0, -72.0], [27.0 * filling, 28.0 * filling, 44.0], [0.3, 0.2, 0.0]),
            Shape::rotated([14.0, -48.0, -112.0], [42.0, 17.0 * filling, 19.0 * filling], [0.0, 0.3, 0.0]),
        ];
        let outline = Shape::union(parts, 14.0).clipped(
            vec![
                Shape::Cavity { inset_mm: 4.0 },
                Shape::union(vec![Self::dome(1.0, -2.0), Self::dome(-1.0, -2.0)], 20.0),
            ],
            vec![],
        );
        let wall = tissue(self.hu.bowel).roughness(2.0).label(STOMACH);
        let lumen = tissue(content).variation(10.0).roughness(3.5).label(STOMACH);
        self.scene.add_layers(outline.clone(), &[(0.0, wall), (4.5, lumen)]);
        let above = Shape::HalfSpace { normal: [0.0, 1.0, 0.0], offset: level };
        self.scene.add(outline.offset(-4.5).clipped(vec![above], vec![]), tissue(-985.0).roughness(3.0).label(STOMACH));
        outline
    }

    fn spleen(&mut self, stomach: &Shape, kidney: &Shape) {
        let size = self.build.spleen;
        let shift = self.shift(4.0);
        let center = [104.0 + 0.4 * shift[0], 40.0 + shift[1], -62.0 + shift[2]];
        let spleen = Shape::rotated(center, [33.0 * size, 50.0 * size, 58.0 * size], [0.3, 0.15, -0.35]).clipped(
            vec![Shape::Cavity { inset_mm: 4.0 }, Self::dome(1.0, -2.0)],
            vec![stomach.offset(3.0), kidney.offset(4.0)],
        );
        self.scene.add(spleen, tissue(self.hu.spleen).variation(5.0).roughness(2.0).label(SPLEEN));
        let hilum: Point = [82.0, 30.0, -66.0];
        let mut tree = Vec::new();
        let rule = BranchingRule { bifurcations: 2, length_ratio: 0.8, radius_ratio: 0.75, spread: 0.7 };
        grow_tree(&mut self.random, hilum, [14.0, 6.0, 6.0], 2.8, rule, &mut tree);
        for tube in tree {
            self.scene.add(tube, tissue(self.hu.portal).within_labels(SPLEEN, SPLEEN));
        }
        let splenic =
            [(hilum, 3.6), ([52.0, 22.0, -78.0], 4.0), ([16.0, 4.0, -98.0], 4.6), ([-8.0, -2.0, -104.0], 5.4)];
        self.scene.add(Shape::chain(&splenic), tissue(self.hu.portal).label(64));
    }

    fn liver(&mut self, stomach: &Shape, kidney: &Shape) {
        let left = self.build.left_lobe;
        let size = self.vary(0.05);
        let mut lobe = |center: Point, radii: Point, angles: Point| {
            let shift = self.shift(3.0);
            Shape::rotated([0, 1, 2].map(|a| center[a] + shift[a]), radii.map(|r| r * size), angles)
        };
        let parts = vec![
            lobe([-80.0, 8.0, -62.0], [68.0, 84.0, 66.0], [0.0; 3]),
            lobe([-94.0, -6.0, -114.0], [36.0, 50.0, 52.0], [0.0, 0.15, 0.0]),
            lobe([-12.0, -40.0, -48.0], [66.0 * left, 38.0, 40.0 * left], [0.15, -0.2, 0.12]),
            lobe([-26.0, 8.0, -58.0], [22.0, 18.0, 30.0], [0.0; 3]),
        ];
        let bladder_center: Point = [-44.0, -46.0, -116.0];
        let bladder = Shape::rotated(bladder_center, [14.0 * self.vary(0.12), 18.0, 29.0], [-0.45, 0.2, 0.0]);
        let porta = Shape::rotated([-22.0, -12.0, -96.0], [34.0, 16.0, 22.0], [0.0, 0.35, 0.0]);
        let domes = Shape::union(vec![Self::dome(-1.0, -1.0), Self::dome(1.0, -1.0)], 24.0);
        let spine = Shape::Disc { center: [0.0, 62.0, -80.0], radii: [34.0, 40.0], half_height: 400.0 };
        let cava = Shape::Tube { a: [-24.0, 20.0, -20.0], b: [-22.0, 26.0, -120.0], ra: 11.5, rb: 11.0 };
        let excluded = vec![bladder.offset(2.0), porta, spine, cava, kidney.offset(5.0), stomach.offset(2.5)];
        let liver = Shape::union(parts, 22.0).clipped(vec![Shape::Cavity { inset_mm: 3.0 }, domes], excluded);
        let hu = self.hu;
        let parenchyma = hu.liver - self.build.liver_fat_hu;
        self.scene.add(liver, tissue(parenchyma).variation(4.0).roughness(2.5).label(LIVER));
        let inside = |blood: f32| tissue(blood).within_labels(LIVER, LIVER);
        self.portal_tree(inside(hu.portal));
        self.hepatic_veins(inside(hu.hepatic_vein));
        let layers = [(0.0, tissue(45.0)), (1.8, tissue(8.0))].map(|(depth, paint)| (depth, paint.label(GALLBLADDER)));
        self.scene.add_layers(bladder, &layers);
        let trunk = [([-8.0, -2.0, -104.0], 6.6), ([-30.0, -6.0, -84.0], 6.4), ([-40.0, -4.0, -78.0], 6.0)];
        self.scene.add(Shape::chain(&trunk), tissue(hu.portal).label(64));
        let upper = [([-8.0, -2.0, -104.0], 6.0), ([-4.0, -10.0, -140.0], 5.0), ([-6.0, -20.0, -205.0], 4.0)];
        self.scene.add(Shape::chain(&upper), tissue(hu.portal));
        let duct = [([-36.0, -14.0, -84.0], 2.4), ([-28.0, 0.0, -128.0], 2.4)];
        self.scene.add(Shape::chain(&duct), tissue(8.0));
    }

    fn portal_tree(&mut self, paint: Paint) {
        let mut tree = Vec::new();
        let root: Point = [-40.0, -4.0, -78.0];
        let rule = BranchingRule { bifurcations: 5, length_ratio: 0.86, radius_ratio: 0.76, spread: 0.6 };
        for (direction, radius) in [
            ([-26.0, 8.0, 10.0], 5.4),
            ([-24.0, 12.0, -22.0], 4.8),
            ([-16.0, -22.0, 12.0], 4.0),
            ([22.0, -24.0, 20.0], 4.4),
        ] {
            grow_tree(&mut self.random, root, direction, radius, rule, &mut tree);
        }
        tree.into_iter().for_each(|tube| self.scene.add(tube, paint));
    }

    fn hepatic_veins(&mut self, paint: Paint) {
        let mut tree = Vec::new();
        let root: Point = [-25.0, 14.0, -20.0];
        let rule = BranchingRule { bifurcations: 4, length_ratio: 0.84, radius_ratio: 0.74, spread: 0.5 };
        for (direction, radius) in
            [([-36.0, 10.0, -16.0], 5.2), ([-18.0, -26.0, -18.0], 4.6), ([14.0, -30.0, -12.0], 4.4)]
        {
            grow_tree(&mut self.random, root, direction, radius, rule, &mut tree);
        }
        tree.into_iter().for_each(|tube| self.scene.add(tube, paint));
    }

    fn pancreas(&mut self) {
        let thickness = self.vary(0.07);
        let shift = self.shift(2.5);
        let point = |[x, y, z]: Point, radius: f32| ([x + shift[0], y + shift[1], z + shift[2]], radius * thickness);
        let gland = [
            point([-24.0, 2.0, -138.0], 9.0),
            point([-26.0, -6.0, -116.0], 13.0),
            point([-6.0, -16.0, -106.0], 10.0),
            point([20.0, -10.0, -96.0], 11.0),
            point([50.0, 10.0, -86.0], 10.5),
            point([78.0, 24.0, -76.0], 8.0),
        ];
        self.scene.add(Shape::chain(&gland), tissue(self.hu.pancreas).variation(12.0).roughness(3.5).label(PANCREAS));
        let duct: Vec<(Point, f32)> = gland[1..].iter().map(|(p, _)| (*p, 1.1)).collect();
        for pair in duct.windows(2) {
            let bar = Shape::Tube { a: pair[0].0, b: pair[1].0, ra: 1.1, rb: 1.1 };
            self.scene.add(bar, tissue(20.0).within_labels(PANCREAS, PANCREAS));
        }
        let duodenum = [
            ([-34.0, -36.0, -112.0], 11.0),
            ([-48.0, -12.0, -122.0], 12.0),
            ([-44.0, 6.0, -160.0], 11.0),
            ([10.0, 10.0, -172.0], 10.0),
        ];
        self.bowel_segment(&duodenum, 19, 18.0, false);
    }

    /// Adds loops of small bowel and the colon, which differ in each scan.
    pub(super) fn bowel(&mut self, random: &mut RandomStream) {
        for _ in 0..16 {
            let mut at: Point =
                [random.uniform(-70.0, 75.0), random.uniform(-62.0, 5.0), random.uniform(-290.0, -145.0)]
                    .map(|v| v as f32);
            let mut points = Vec::new();
            for _ in 0..5 {
                points.push((at, random.uniform(10.0, 13.5) as f32));
                let direction = random.direction();
                let [low, high] = [[-85.0, -70.0, -300.0], [88.0, 14.0, -140.0]];
                at = [0, 1, 2].map(|a| (at[a] + 30.0 * direction[a] as f32).clamp(low[a], high[a]));
            }
            let content = if random.chance(0.2) { -985.0 } else { random.uniform(8.0, 40.0) as f32 };
            self.bowel_segment(&points, 18, content, true);
        }
        let sag = random.uniform(-20.0, 25.0) as f32;
        let frame = [
            vec![([-104.0, 8.0, -290.0], 22.0), ([-108.0, 16.0, -230.0], 21.0), ([-106.0, 20.0, -178.0], 19.0)],
            vec![
                ([-106.0, 20.0, -178.0], 18.0),
                ([-60.0, -52.0, -176.0 - sag], 17.0),
                ([0.0, -66.0, -178.0 - sag], 17.0),
                ([64.0, -50.0, -150.0], 16.0),
                ([104.0, 6.0, -118.0], 15.0),
            ],
            vec![([104.0, 6.0, -118.0], 14.0), ([114.0, 30.0, -180.0], 13.0), ([108.0, 26.0, -290.0], 14.0)],
        ];
        for part in frame {
            let content = if random.chance(0.45) { -985.0 } else { random.uniform(15.0, 60.0) as f32 };
            self.bowel_segment(&part, 20, content, true);
        }
    }

    /// Adds a segment of bowel, wall and content, within the abdominal cavity.
    fn bowel_segment(&mut self, points: &[(Point, f32)], label: u8, content: f32, lumpy: bool) {
        let rough = if lumpy { 3.0 } else { 1.0 };
        let wall = tissue(self.hu.bowel).roughness(rough).label(label);
        let variation = if content < -500.0 { 10.0 } else { 25.0 };
        let lumen = tissue(content).variation(variation).roughness(rough).label(label);
        let segment = Shape::chain(points).clipped(vec![Shape::Cavity { inset_mm: 3.0 }], vec![]);
        self.scene.add_layers(segment, &[(0.0, wall), (2.8, lumen)]);
    }
}
