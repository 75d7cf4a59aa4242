"""The page of settings says what the services are told, and all of it."""

from deploy.settings_page import PAGE, SERVICES, attribute_docstrings, page
from services.simulated_carrier.settings import CarrierSettings


def test_the_page_is_as_the_settings_are():
    assert PAGE.read_text() == page(), "make it anew: .venv/bin/python -m deploy.settings_page"


def test_every_setting_has_its_meaning():
    for settings in SERVICES.values():
        for name, field in settings.model_fields.items():
            assert field.description, f"{settings.__name__}.{name}"
    assert attribute_docstrings(CarrierSettings).keys() == CarrierSettings.model_fields.keys()
