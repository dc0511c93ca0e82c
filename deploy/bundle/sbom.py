"""The bill of materials of an image, in CycloneDX: Debian's packages and Python's distributions in it."""

from __future__ import annotations

from collections.abc import Iterable

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from deploy.rollout.compose import Command
from deploy.rollout.shell import Shell

# In the image's own shell: not every image has Python, and one that has it may have several.
_INVENTORY = r"""
set -eu
debian=$(dpkg-query --show --showformat '${db:Status-Abbrev} deb ${Package} ${Version} ${Architecture}\n')
printf '%s\n' "$debian" | sed -n 's/^ii *//p'
find / -xdev -regextype posix-extended -regex '.*/(site|dist)-packages/[^/]+\.dist-info/METADATA' -exec awk '
    { sub(/\r$/, "") } /^Name: / { name = $2 } /^Version: / { version = $2 } /^$/ { exit }
    END { print "pypi", name, version }' {} \;
"""


def bill_of(image: str, shell: Shell) -> str:
    """CycloneDX 1.6 as JSON. Raises CommandFailed where the image can't be run, or is none of Debian's family."""
    identity = shell.output(Command(("docker", "image", "inspect", "--format", "{{.Id}}", image), {})).strip()
    command = (
        "docker", "run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--user", "0:0",
        "--cap-drop", "ALL", "--cap-add", "DAC_READ_SEARCH", "--entrypoint", "sh", image, "-c", _INVENTORY,
    )  # fmt: skip
    return bill(image, identity, shell.output(Command(command, {})).splitlines())


def bill(image: str, identity: str, inventory: Iterable[str]) -> str:
    """The bill of lines ``deb NAME VERSION ARCHITECTURE`` and ``pypi NAME VERSION``."""
    bom = Bom(components=[_component(*line.split()) for line in sorted(set(inventory))])
    bom.metadata.component = Component(type=ComponentType.CONTAINER, name=image, version=identity, bom_ref=identity)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)


def _component(kind: str, name: str, version: str, architecture: str = "") -> Component:
    # `deb` has the vendor as its namespace; a distribution's name is looked up in lower case, with hyphens.
    url = (
        PackageURL("deb", "debian", name, version, {"arch": architecture})
        if kind == "deb"
        else PackageURL("pypi", None, name.lower().replace("_", "-"), version)
    )
    return Component(type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url))
