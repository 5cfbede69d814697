"""The language of scenario files: what it reads, and the line it names when it does not understand."""
import pathlib
import unittest

import scenario

HEAD = "# W1 N2: a sentence.\n"


def parse(text: str, value: str | None = None):
    return scenario.parse(pathlib.Path("x.scenario"), value, HEAD + text)


class Language(unittest.TestCase):
    def refused(self, text: str, why: str):
        with self.assertRaises(scenario.ScenarioError) as caught:
            parse(text)
        self.assertIn(why, str(caught.exception))

    def test_reads_every_kind_of_line(self):
        spec = parse("cell aw=1 ew=3 replicas=2 restart=no  # beside the line\n"
                     "flags aw --max-num-batched-tokens 16\n"
                     "load streams=4 seed=9 tokens=20 for=2s\n"
                     "before arm ew1 ew.before_reply=crash@3\n"
                     "at token 17 kill -9 ew2\n"
                     "then after 300ms restart ew2\n"
                     "at 5s stop aw0 for 5s\n"
                     "every 2s kill any worker\n"
                     "expect stall_max <= 50ms\n"
                     "expect failed <= 3 as experts_unavailable\n")
        self.assertEqual(spec.ids, ["W1", "N2"])
        self.assertEqual(spec.sentence, "a sentence.")
        self.assertEqual((spec.cell.ew, spec.cell.restart, spec.load.span), (3, False, 2.0))
        self.assertEqual([(e.trigger, e.value) for e in spec.events],
                         [("before", 0), ("token", 17), ("time", 5.0), ("every", 2.0)])
        self.assertEqual([a.verb for a in spec.events[1].actions], ["kill", "sleep", "restart"])
        self.assertEqual(spec.expects[1].words, ["<=", "3", "as", "experts_unavailable"])

    def test_sweep_gives_its_variable_each_value(self):
        text = 'sweep how "ew1 rest" "rest -> ew1"\ncell network=namespaces\nat 1s cut $how\n'
        self.assertEqual(parse(text).events[0].actions[0].words, ["ew1", "rest"])
        self.assertEqual(parse(text, "rest -> ew1").events[0].actions[0].words, ["rest", "->", "ew1"])

    def test_names_the_line_and_what_is_allowed(self):
        self.refused("wreck ew1\n", "x.scenario:2: 'wreck' is not understood; a line begins with")
        self.refused("\n\nat 1s explode ew1\n", "x.scenario:4: 'explode' is no action; there are kill")
        self.refused("at 1s kill ew9\n", "there is no 'ew9' in this cell: router gw0 aw0")
        self.refused("at soon kill ew1\n", "'soon' is no time")
        self.refused("at 1s stop\n", "the form is: stop")
        self.refused("at 1s cut ew1 rest\n", "cut needs `cell ... network=namespaces`")
        self.refused("cell aw=two\n", "x.scenario:2:")
        self.refused("cell cores=2\n", "allowed: gw= aw= ew=")
        self.refused("at 1s arm ew1 $plan\n", "no such variable")
        self.refused("expect fine\n", "expect identical | failed")
        self.refused("expect failed few\n", "the form is: expect failed")
        self.refused("then kill ew1\n", "`then` follows")

    def test_the_first_line_says_what_the_file_is_for(self):
        with self.assertRaises(scenario.ScenarioError):
            scenario.parse(pathlib.Path("x.scenario"), None, "cell aw=1\n")

    def test_every_file_of_the_folder_is_understood(self):
        for path in sorted((pathlib.Path(__file__).parent / "scenarios").glob("*.scenario")):
            for value in scenario.parse(path).sweep:
                scenario.parse(path, value)


if __name__ == "__main__":
    unittest.main()
