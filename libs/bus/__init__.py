from libs.bus.client_repairs import repair_clients

repair_clients()
