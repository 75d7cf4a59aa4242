-- A claim may ask for moments that lie ahead by about as long as it takes itself (`p_lead_us`, at most a second): where claims are slow, those
-- that begin at once have passed before their answer comes, and nothing could leave. One claim then grants for as much longer.
CREATE FUNCTION claim(
    p_instance uuid, p_claim bigint, p_repeat boolean, p_gateway text, p_interval_us bigint, p_age_us bigint, p_lead_us bigint,
    p_leg_at timestamptz[], p_message uuid[], p_cycle smallint[], p_leg smallint[], p_valid_until timestamptz[], p_decided_at timestamptz[],
    p_part smallint[], p_try smallint[], p_first boolean[], p_known smallint[], p_reference int[]
) RETURNS TABLE (ord int, verdict "char", leave_us bigint)
LANGUAGE plpgsql AS $$
DECLARE
    v_alive   boolean;
    v_now     timestamptz;
    v_next    timestamptz;
    v_step    interval := p_interval_us * interval '1 microsecond';
    v_lead    interval := p_lead_us * interval '1 microsecond';
    v_horizon interval := interval '250 milliseconds' + v_lead;
    v_room    bigint := cardinality(p_message);
    v_plain   boolean := p_part IS NULL;
    v_marks   boolean;
    v_granted bigint;
BEGIN
    UPDATE instances SET beat = beat + 1 WHERE instance = p_instance AND NOT dead;
    v_alive := FOUND;
    SELECT r.next_at INTO STRICT v_next FROM rates r WHERE r.gateway = p_gateway FOR UPDATE;
    v_now := clock_timestamp();
    IF v_plain THEN
        p_part := array_fill(1::smallint, ARRAY[cardinality(p_message)]);
        p_try := p_part;
        p_first := array_fill(true, ARRAY[cardinality(p_message)]);
        p_known := array_fill(0::smallint, ARRAY[cardinality(p_message)]);
        p_reference := array_fill(0, ARRAY[cardinality(p_message)]);
    END IF;

    IF p_repeat THEN
        RETURN QUERY
            SELECT u.ord::int, coalesce(a.outcome, 'G'),
                   (extract(epoch FROM a.allowed_at - v_now) * 1000000)::bigint + p_age_us
              FROM unnest(p_leg_at, p_message, p_cycle, p_leg, p_part, p_try)
                   WITH ORDINALITY AS u (leg_at, message_id, cycle, leg, part, try, ord)
              JOIN attempts a USING (leg_at, message_id, cycle, leg, part, try)
             WHERE a.owner = p_instance AND a.claim = p_claim;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF NOT v_alive THEN
        RETURN QUERY SELECT 0, 'L'::"char", 0::bigint;
        RETURN;
    END IF;

    IF p_interval_us > 0 THEN
        -- A clock further ahead than one claim can have put it, with a lead of a second, comes from a clock that jumped.
        IF v_next > v_now + interval '2250 milliseconds' + v_step THEN
            v_next := v_now;
        END IF;
        v_next := greatest(v_next, v_now + v_lead);  -- no credit for idle time
        v_room := CASE WHEN v_next > v_now + v_lead + v_horizon THEN 0
                       ELSE floor(extract(epoch FROM v_now + v_lead + v_horizon - v_next) * 1000000 / p_interval_us) + 1 END;
    ELSE
        v_next := v_now;
    END IF;
    v_marks := EXISTS (SELECT FROM marks);

    IF v_plain AND p_interval_us = 0 THEN
        -- Nothing to look up or to count: whatever else such a leg holds, it holds the row of this try, and the key refuses a second.
        WITH taken AS (
            INSERT INTO attempts AS a (leg_at, message_id, cycle, leg, part, try, owner, claim, reference, allowed_at, outcome, observed_at)
            SELECT j.leg_at, j.message_id, j.cycle, j.leg, 1, 1, p_instance, p_claim, 0, v_now,
                   j.said, CASE WHEN j.said IS NOT NULL THEN v_now END
              FROM (SELECT u.*, CASE
                               WHEN v_marks AND EXISTS (
                                    SELECT FROM marks m WHERE m.message_id = u.message_id AND m.cycle = u.cycle AND m.kind = 'cancel') THEN 'C'
                               WHEN v_marks AND EXISTS (
                                    SELECT FROM marks m WHERE m.message_id = u.message_id AND m.cycle = u.cycle AND m.kind = 'return'
                                       AND m.asked_at > u.decided_at) THEN 'R'
                               WHEN u.valid_until <= v_now THEN 'X' END::"char" AS said
                      FROM unnest(p_leg_at, p_message, p_cycle, p_leg, p_valid_until, p_decided_at)
                           AS u (leg_at, message_id, cycle, leg, valid_until, decided_at)) j
            ON CONFLICT DO NOTHING
            RETURNING a.outcome
        )
        SELECT count(*) FILTER (WHERE t.outcome IS NULL) INTO v_granted FROM taken t;
        IF v_granted = cardinality(p_message) THEN
            RETURN QUERY SELECT 0, 'G'::"char", p_age_us;
            RETURN;
        END IF;
        RETURN QUERY
            SELECT u.ord::int, CASE WHEN a.owner = p_instance AND a.claim = p_claim THEN coalesce(a.outcome, 'G') ELSE 'K' END, p_age_us
              FROM unnest(p_leg_at, p_message, p_cycle, p_leg) WITH ORDINALITY AS u (leg_at, message_id, cycle, leg, ord)
              LEFT JOIN attempts a ON a.leg_at = u.leg_at AND a.message_id = u.message_id AND a.cycle = u.cycle AND a.leg = u.leg
                                  AND a.part = 1 AND a.try = 1;
        RETURN;
    END IF;
    RETURN QUERY
    WITH asked AS (
        SELECT u.*, e.known AS known_here, e.closed, e.open
          FROM unnest(p_leg_at, p_message, p_cycle, p_leg, p_part, p_try, p_first, p_known, p_valid_until, p_decided_at, p_reference)
               WITH ORDINALITY AS u (leg_at, message_id, cycle, leg, part, try, first, known, valid_until, decided_at, reference, ord)
         CROSS JOIN LATERAL (
               -- The first try of a single part needs no look: whatever else the leg holds, it holds that row.
               SELECT count(*) AS known,
                      coalesce(bool_or(a.outcome IN ('E', 'F', 'C', 'R', 'X', 'n', 'f')), false) AS closed,
                      coalesce(bool_or(a.outcome IS NULL OR a.outcome IN ('A', 'D', 'P')), false) AS open
                 FROM attempts a
                WHERE NOT u.first AND a.leg_at = u.leg_at AND a.message_id = u.message_id
                  AND a.cycle = u.cycle AND a.leg = u.leg
         ) e
    ), judged AS (
        SELECT asked.*, CASE
                   WHEN asked.known_here <> asked.known OR asked.closed THEN 'K'
                   WHEN v_marks AND NOT asked.open AND EXISTS (
                        SELECT FROM marks m WHERE m.message_id = asked.message_id AND m.cycle = asked.cycle AND m.kind = 'cancel') THEN 'C'
                   WHEN v_marks AND NOT asked.open AND EXISTS (
                        SELECT FROM marks m WHERE m.message_id = asked.message_id AND m.cycle = asked.cycle AND m.kind = 'return'
                           AND m.asked_at > asked.decided_at) THEN 'R'
                   WHEN asked.valid_until <= v_now THEN 'X'
                   ELSE 'G' END AS said
          FROM asked
    ), numbered AS (
        SELECT judged.*, row_number() OVER (PARTITION BY judged.said ORDER BY judged.ord) AS place FROM judged
    ), clock AS (
        UPDATE rates r
           SET next_at = v_next + v_step * (SELECT least(count(*), v_room) FROM numbered n WHERE n.said = 'G')
         WHERE r.gateway = p_gateway AND p_interval_us > 0
    ), taken AS (
        INSERT INTO attempts AS a (leg_at, message_id, cycle, leg, part, try, owner, claim, reference, allowed_at, outcome, observed_at)
        SELECT n.leg_at, n.message_id, n.cycle, n.leg, n.part, n.try, p_instance, p_claim, n.reference,
               CASE WHEN n.said = 'G' THEN v_next + v_step * (n.place - 1) ELSE v_now END,
               CASE WHEN n.said = 'G' THEN NULL ELSE n.said::"char" END,
               CASE WHEN n.said = 'G' THEN NULL ELSE v_now END
          FROM numbered n
         WHERE n.said IN ('C', 'R', 'X') OR (n.said = 'G' AND n.place <= v_room)
        ON CONFLICT DO NOTHING
        RETURNING a.message_id, a.cycle, a.leg, a.part, a.try, a.allowed_at
    )
    SELECT n.ord::int,
           CASE WHEN t.message_id IS NULL THEN 'K' ELSE n.said END::"char",
           coalesce((extract(epoch FROM t.allowed_at - v_now) * 1000000)::bigint, 0) + p_age_us
      FROM numbered n
      LEFT JOIN taken t ON t.message_id = n.message_id AND t.cycle = n.cycle AND t.leg = n.leg AND t.part = n.part AND t.try = n.try
     WHERE n.said <> 'G' OR n.place <= v_room;
END
$$;

-- What replicas of the older release call, which are replaced one after the other.
CREATE OR REPLACE FUNCTION claim(
    p_instance uuid, p_claim bigint, p_repeat boolean, p_gateway text, p_interval_us bigint, p_age_us bigint,
    p_leg_at timestamptz[], p_message uuid[], p_cycle smallint[], p_leg smallint[], p_valid_until timestamptz[], p_decided_at timestamptz[],
    p_part smallint[], p_try smallint[], p_first boolean[], p_known smallint[], p_reference int[]
) RETURNS TABLE (ord int, verdict "char", leave_us bigint)
LANGUAGE sql AS $$
    SELECT * FROM claim(p_instance, p_claim, p_repeat, p_gateway, p_interval_us, p_age_us, 0, p_leg_at, p_message, p_cycle, p_leg,
                        p_valid_until, p_decided_at, p_part, p_try, p_first, p_known, p_reference)
$$;
