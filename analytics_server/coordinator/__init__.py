"""The coordinator's process: services, requests, rounds, enrolment."""
