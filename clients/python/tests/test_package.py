"""The wheel, and the types."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

import common

try:
    import build
except ImportError:
    build = None


class Package(common.Case):
    @unittest.skipUnless(build, "python3-build is not installed")
    def test_wheel(self):
        """Built from the source alone; what is in it can be imported from it."""
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "source")
            shutil.copytree(common.PACKAGE, source, ignore=shutil.ignore_patterns(
                "__pycache__", "tests", "*.egg-info", "build", ".mypy_cache"))
            subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation",
                            "--outdir", folder, str(source)], check=True, capture_output=True)
            (wheel,) = pathlib.Path(folder).glob("*.whl")
            self.assertEqual(wheel.name, "ryw-1.1.0-py3-none-any.whl")
            names = set(zipfile.ZipFile(wheel).namelist())
            expected = {f"ryw/{file.name}" for file in (common.PACKAGE / "ryw").iterdir()
                        if file.is_file()}
            self.assertIn("ryw/py.typed", expected)
            self.assertEqual({name for name in names if name.startswith("ryw/")}, expected)
            metadata = zipfile.ZipFile(wheel).read("ryw-1.1.0.dist-info/METADATA").decode()
            self.assertNotIn("Requires-Dist", metadata)
            # the adapters, from the wheel, in a folder that has nothing else
            code = "import ryw, ryw.http, ryw.psycopg2; print(ryw.__file__)"
            out = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, text=True,
                                 capture_output=True,
                                 env={**os.environ, "PYTHONPATH": str(wheel)}).stdout
            self.assertIn(".whl", out)

    @unittest.skipUnless(shutil.which("mypy"), "mypy is not installed")
    def test_types(self):
        done = subprocess.run(["mypy", "--cache-dir", os.devnull, "ryw"], cwd=common.PACKAGE,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_size(self):
        """At most 900 lines of code, in lines of at most 100 characters."""
        import ast
        import tokenize
        count = 0
        for file in (common.PACKAGE / "ryw").glob("*.py"):
            code = set()
            with tokenize.open(file) as source:
                for token in tokenize.generate_tokens(source.readline):
                    self.assertLessEqual(len(token.line.split("\n")[0]), 100, file)
                    if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE,
                                          tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
                        code.update(range(token.start[0], token.end[0] + 1))
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                    code -= set(range(node.lineno, node.end_lineno + 1))
            count += len(code)
        self.assertLessEqual(count, 900)
