/// A certificate for localhost that signs itself, with its key: good for a hundred years, and for nothing but these tests.
enum TestCertificate {
    static let certificate = """
        -----BEGIN CERTIFICATE-----
        MIIBRzCB7qADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
        dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTE5MTIzMTAwMDAwMFowFDESMBAGA1UEAwwJ
        bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEiTZ2d/ml+BmEPjZg
        dHuCW4XEw1YYWx6N6GcYob9MjEzkTk3je/H/e2Um0jYbODEZAq1VjM2chovN7ku3
        SP9hxaMvMC0wGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMA8GA1UdEwEB/wQF
        MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAPZeA1qC8vFWEBDmr3/wB32/LOOoBFHj
        bRbnNRf7NiR2AiBmm8Ftpqxs4W0DJkjMu+GUFquwZXk1p56G2k8qNaz/kw==
        -----END CERTIFICATE-----
        """

    static let key = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVSlBrbCFIlKOFUlc
        k3Hg0OdwOPAPUGJcpOWR9bjG2vuhRANCAASJNnZ3+aX4GYQ+NmB0e4JbhcTDVhhb
        Ho3oZxihv0yMTOROTeN78f97ZSbSNhs4MRkCrVWMzZyGi83uS7dI/2HF
        -----END PRIVATE KEY-----
        """
}
