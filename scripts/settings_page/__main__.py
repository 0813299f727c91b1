"""Write docs/settings.md and the JSON Schemas of configs and studies: `python -m scripts.settings_page`."""

import json
from pathlib import Path

from scripts.settings_page.page import page
from scripts.settings_page.schema import run_schema, study_schema

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "src" / "forgetmenot" / "schema"


def files() -> dict[Path, str]:
    """What belongs into each file."""
    schemas = {"run": run_schema(), "study": study_schema()}
    return {
        ROOT / "docs" / "settings.md": page(),
        **{SCHEMAS / f"{name}.schema.json": _json(schema) for name, schema in schemas.items()},
    }


def _json(schema: object) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
