"""The bill of materials as tools read it; that it names what an image has is for tests/e2e/test_images.py."""

import json

from deploy.bundle.sbom import bill

INVENTORY = ["deb libc6 2.36-9+deb12u10 amd64", "pypi Typing_Extensions 4.15.0", "pypi duckdb 1.5.5"]


def test_every_package_has_its_name_its_version_and_the_address_that_tools_know_it_by():
    read = json.loads(bill("marts/backend:1", "sha256:abc", INVENTORY))
    assert {(part["name"], part["version"], part["purl"]) for part in read["components"]} == {
        ("libc6", "2.36-9+deb12u10", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"),
        ("Typing_Extensions", "4.15.0", "pkg:pypi/typing-extensions@4.15.0"),
        ("duckdb", "1.5.5", "pkg:pypi/duckdb@1.5.5"),
    }


def test_it_says_which_image_it_is_of():
    read = json.loads(bill("marts/backend:1", "sha256:abc", INVENTORY))
    assert (read["bomFormat"], read["specVersion"]) == ("CycloneDX", "1.6")
    image = read["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "marts/backend:1", "sha256:abc")


def test_a_package_of_two_interpreters_is_named_once():
    assert len(json.loads(bill("i", "sha256:abc", [*INVENTORY, *INVENTORY]))["components"]) == len(INVENTORY)
