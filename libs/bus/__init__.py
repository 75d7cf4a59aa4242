from libs.bus.closed_connections import expect_closed_connections

expect_closed_connections()
