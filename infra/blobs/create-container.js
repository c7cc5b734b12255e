// Creates the container `tollgate` in the Azurite at 127.0.0.1:PORT. Usage: node create-container.js PORT
// Exit code 0: it is there, now or since before. Azurite wants requests that are signed with its published key.
const crypto = require("crypto");
const http = require("http");

const ACCOUNT = "devstoreaccount1";
const KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER = "tollgate";
const VERSION = "2021-12-02";
const SECONDS_MAX = 5;

const date = new Date().toUTCString();
// The verb, eleven standard headers of which none is sent, ours, and what is asked for (the account, and the path, which begins with it).
const signed = [
    "PUT", ...Array(11).fill(""),
    `x-ms-date:${date}`, `x-ms-version:${VERSION}`,
    `/${ACCOUNT}/${ACCOUNT}/${CONTAINER}`, "restype:container",
].join("\n");
const signature = crypto.createHmac("sha256", Buffer.from(KEY, "base64")).update(signed, "utf8").digest("base64");
const request = http.request({
    host: "127.0.0.1",
    port: Number(process.argv[2]),
    method: "PUT",
    path: `/${ACCOUNT}/${CONTAINER}?restype=container`,
    headers: {
        "x-ms-date": date, "x-ms-version": VERSION, "content-length": 0,
        authorization: `SharedKey ${ACCOUNT}:${signature}`,
    },
    timeout: SECONDS_MAX * 1000,
}, (response) => {
    // 409: it exists.
    process.exit(response.statusCode === 201 || response.statusCode === 409 ? 0 : 1);
});
request.on("timeout", () => process.exit(1));
request.on("error", () => process.exit(1));
request.end();
