"""docs/reliability.md names every fault case once; what it names exists and carries the id."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
IDS = {
    "W": [1, 2, 3, 5, 6, 8, 11, 16, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28],
    "N": [1, 2, 4, 6, 8, 9, 10, 12, 13, 14, 15],
    "O": [1, 2, 3, 5, 7, 8, 10, 12, 14],
    "C": [1, 4, 5, 7, 8, 9, 11],
    "R": [1, 3, 4, 6, 8, 9, 10, 11, 12, 16],
    "M": [1, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14],
    "S": [1, 2, 4, 5, 7, 10, 11, 12, 13, 16],
    "D": [1, 2, 3, 4, 5, 6, 7, 8, 9],
}


class Reliability(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = (ROOT / "docs/reliability.md").read_text()
        cls.rows = re.findall(r"^\| ([A-Z]\d+) \| (.+?) \| (.*) \|$", cls.text, re.M)

    def test_every_id_once(self):
        expected = [f"{group}{number}" for group, numbers in IDS.items() for number in numbers]
        self.assertEqual(len(expected), 86)
        self.assertEqual([row[0] for row in self.rows], expected)

    def test_what_is_named_exists(self):
        for name, _, covered in self.rows:
            for path, test in re.findall(r"`([\w./-]+/[\w.-]+)(?::(\w+))?`", covered):
                with self.subTest(name, path=path, test=test):
                    self.assertTrue((ROOT / path).is_file())
                    if test:
                        self.assertRegex((ROOT / path).read_text(), rf"\b{test}\b")

    def test_one_of_the_named_files_carries_the_id(self):
        for name, _, covered in self.rows:
            paths = re.findall(r"`([\w./-]+/[\w.-]+)(?::\w+)?`", covered)
            if covered.startswith("`"):
                with self.subTest(name):
                    text = "".join((ROOT / path).read_text() for path in paths)
                    self.assertTrue(re.search(rf"(?i)(?<![a-z0-9]){name}(?![0-9])", text), paths)

    def test_a_row_names_a_file_or_says_why_not(self):
        for name, _, covered in self.rows:
            self.assertTrue(covered.startswith("`") or covered.startswith("Not yet"), name)

    def test_the_count(self):
        covered = sum(row[2].startswith("`") for row in self.rows)
        self.assertIn(f"{covered} of {len(self.rows)} are covered", self.text)


if __name__ == "__main__":
    unittest.main()
